"""The console: a conversation on the whole screen of a terminal, with keys (needs textual).

Only `rtvoice.console.app` and what it imports need textual. `Link` is between the session's
threads and the screen; `rtvoice.view.View` has the state that is shown; `panels` and `entries`
make rows of it.
"""
