"""What is shown of a conversation: folded from its events, the same for console, page and file.

`View` takes the messages of a session and keeps the state that a screen shows. It has no thread, no
clock and no output.
"""

from rtvoice.view.state import Counts, Entry, Latency, Phase, Process, Waits
from rtvoice.view.view import PARTIAL_TRANSCRIPT, View

__all__ = ["PARTIAL_TRANSCRIPT", "Counts", "Entry", "Latency", "Phase", "Process", "View", "Waits"]
