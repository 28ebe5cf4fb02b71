"""Audio devices: sound cards, files, silence, and devices written by the user."""
