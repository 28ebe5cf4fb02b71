"""A sound card: which devices there are, how one is opened, lost and found again."""
