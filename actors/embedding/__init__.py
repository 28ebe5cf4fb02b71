"""The program's side of a session that it embeds: nothing here runs in a child."""
