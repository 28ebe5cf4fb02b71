"""A Realtime API server for trying things out: `python -m rtvoice.sandbox`.

It imports nothing, so that the server can listen before the slow imports.

    __main__  the command line, and the socket     run      what is printed, warmed up and ended
    server    connections, tasks, the pace         session  the protocol, without a socket
    launch    starting it from a program           responses, conversation, settings, input_audio
    vad       where speech begins and ends         listen   recognising the phrases
    brain     what is answered                     speak    the voices
    line      the way to a client                  faults   misbehaviour on command: its words
    script    what a test has it say
"""
