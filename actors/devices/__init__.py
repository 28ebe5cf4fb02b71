"""What a microphone or a speaker can be: a sound card, a file, silence, or the program's own."""
