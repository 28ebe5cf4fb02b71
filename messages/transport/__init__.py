"""The transport of messages: frames, channels, mailboxes and the accounting page."""
