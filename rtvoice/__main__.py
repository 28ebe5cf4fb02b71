"""``python -m rtvoice``: the same as ``python -m supervisor``, whoever else has that name."""

from rtvoice.command.cli import main

if __name__ == "__main__":
    main()
