"""A lifeline: the kernel signals a process group as soon as the process that holds the line ends.

It needs no code in the group, so it works while a process is stopped, imports, or keeps the GIL.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import weakref

if sys.platform == "linux":
    import fcntl

__all__ = ["Lifeline", "arm"]

_held: weakref.WeakSet[Lifeline] = weakref.WeakSet()


class Lifeline:
    """The holder's end of a pipe; the other end belongs to the process group.

    When the holder ends, however it ends, the kernel closes its end of the pipe and sends the group
    the signal that `arm` has asked for. Only Linux can do that; elsewhere nothing is done.
    """

    def __init__(self) -> None:
        """Make the pipe.

        Raises:
            OSError: If the system has no descriptor left.
        """
        self.theirs = self._ours = -1
        self.theirs, self._ours = os.pipe()
        _held.add(self)

    def pass_on(self) -> None:
        """Close our copy of the group's end, once the group has it."""
        self.theirs = _closed(self.theirs)

    def close(self) -> None:
        """Close both ends; a group that is left is sent its signal."""
        self.theirs = _closed(self.theirs)
        self._ours = _closed(self._ours)

    def __del__(self) -> None:
        self.close()


def _closed(descriptor: int) -> int:
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    return -1


def arm(theirs: int, group: int, number: int = getattr(signal, "SIGKILL", 9)) -> None:
    """Have the kernel signal a process group when the holder of this line ends.

    Args:
        theirs: The group's end of the line. Some process of the group has to keep it open.
        group: The number of the process group, which is that of its first process.
        number: The signal.

    Raises:
        EOFError: If the holder has ended before.
    """
    if sys.platform != "linux":
        return
    # The owner of a descriptor is told by a signal that it can be read, or has been hung up. The
    # signal may be chosen (fcntl(2), F_SETSIG), and SIGKILL ends stopped processes too.
    fcntl.fcntl(theirs, fcntl.F_SETOWN, -group)
    fcntl.fcntl(theirs, fcntl.F_SETSIG, number)
    fcntl.fcntl(theirs, fcntl.F_SETFL, fcntl.fcntl(theirs, fcntl.F_GETFL) | fcntl.FASYNC)
    poll = select.poll()
    poll.register(theirs, 0)  # no events: hang-up only
    if poll.poll(0):
        raise EOFError("the holder of the lifeline has ended")


def _let_go() -> None:
    """Close the lines in a process forked from ours, which would hold them too."""
    for line in list(_held):
        line.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
