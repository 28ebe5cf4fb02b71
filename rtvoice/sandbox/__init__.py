"""A local Realtime API server for tests and first steps: `python -m rtvoice.sandbox`.

This package imports nothing, so that the server can listen before the slow imports.

    __main__  command line and socket              run      start, warm-up and end of the process
    server    connections, tasks, the pace         session  the protocol, without a socket
    launch    starting it from a program           responses, conversation, settings, input_audio
    vad       detection of speech                  listen   recognition of the phrases
    brain     choice of the answer                 speak    the voices
    line      sending to a client, with faults     faults   parsing of faults
    script    answers set by a test
"""
