"""A world on a clock of its own around the core.

The sandbox's sessions are its server (`line`, `model`). A loudspeaker, a microphone, the history
and the tools are what they are in a session (`speaker`, `microphone`, `history`, `tools`). The user
speaks, types, shows images or holds a key while he talks, and the program asks for things (`user`).
The connection breaks and the process of the core is killed (`process`). `laws` says what must hold
once everything has come to rest.
"""
