"""The components, each an actor in a child process; what keeps them up; a program's side of it."""
