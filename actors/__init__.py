"""The components, each an actor in a child process, and what starts them again (`supervision`)."""
