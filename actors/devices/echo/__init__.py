"""Acoustic echo cancelling in the microphone's process: reference, alignment, engine, guard."""
