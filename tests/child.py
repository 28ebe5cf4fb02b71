"""``python -m tests.child CODE``: a process that does what a test says."""

import sys

if __name__ == "__main__":
    exec(sys.argv[1])
