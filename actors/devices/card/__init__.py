"""Sound cards: listing, choosing and opening devices, and replacing lost ones."""
