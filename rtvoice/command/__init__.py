"""The command line: parser, console, demo and doctor."""
