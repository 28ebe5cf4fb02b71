"""``python -m rtvoice``: ``python -m supervisor``, even if another package has that name."""

from rtvoice.command.cli import main

if __name__ == "__main__":
    main()
