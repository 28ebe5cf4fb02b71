"""Embedding a session in a program; this code runs in the program, not in a component."""
