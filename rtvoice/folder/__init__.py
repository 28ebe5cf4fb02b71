"""The folder of a session, after it: read, shown as text, JSON, Markdown or HTML, and played."""

from rtvoice.folder.reading import Folder, Part, UnreadableFolderError
from rtvoice.folder.turns import Said

__all__ = ["Folder", "Part", "Said", "UnreadableFolderError"]
