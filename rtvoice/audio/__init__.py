"""Audio of the user's own."""
