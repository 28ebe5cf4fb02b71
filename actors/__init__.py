"""What runs in a child process: one actor each, on a host that a supervisor talks to."""
