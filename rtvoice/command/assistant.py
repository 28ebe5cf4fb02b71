"""The default assistant of ``python -m supervisor``, which runs if no AGENT is given."""

from __future__ import annotations

from rtvoice.agent import Agent

__all__ = ["ASSISTANT"]

ASSISTANT = Agent(
    instructions=(
        "You are a friendly assistant in a spoken conversation. Answer in one or two short "
        "sentences, in the language in which you are spoken to, without lists or markup. If you "
        "did not understand, say so and ask. When the user says goodbye or asks you to stop, call "
        "stop_assistant_run."
    ),
    transcription_model="gpt-transcribe",
)
