"""How messages travel: frames, channels, mailboxes and the accounting page."""
