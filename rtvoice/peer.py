"""``python -m rtvoice.peer``: the supervisor of a session; its program starts it."""

import sys

from rtvoice.hub import supervisor

if __name__ == "__main__":
    sys.exit(supervisor().serve_program())
