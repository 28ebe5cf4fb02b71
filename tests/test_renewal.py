"""A conversation that outlives the server's sessions, in real processes."""

from __future__ import annotations

from messages import Disconnected, PlaybackEnded, Reconnected, SendText, Turn
from rtvoice.testing import SandboxServer
from supervisor import Session
from tests.rig import TIMEOUT_S


def _ask(session: Session, text: str, item_id: str) -> str:
    """Type something, and return what is answered, once it has been heard."""
    events = session.events(Turn, PlaybackEnded)
    session.send(SendText(text, item_id))
    answer = ""
    while not isinstance(event := events.get(timeout_s=TIMEOUT_S), PlaybackEnded):
        assert event is not None, "the session has ended"
        if event.role == "assistant":
            answer = event.text
    events.close()
    return answer


def test_the_next_session_takes_over_before_the_server_ends_the_first_and_remembers() -> None:
    with (
        SandboxServer(max_session_s=8.0) as server,
        Session(
            server=server.url, input="silence", output="null", inactivity_timeout_s=None
        ) as session,
    ):
        renewed, lost = session.events(Reconnected), session.events(Disconnected)
        _ask(session, "my name is Ada", "t1")

        event = renewed.get(timeout_s=TIMEOUT_S + 8.0)
        answer = _ask(session, "what did i say", "t2")

        assert isinstance(event, Reconnected)
        assert (event.gap_ms, event.state_restored, event.items) == (0, True, 2)
        assert answer == "You said: my name is Ada"
        assert server.connections == 2
        session.stop()
        assert lost.get(timeout_s=TIMEOUT_S) is None
