"""The images of a conversation, kept in files that outlive the process."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from messages import SendImage, SentImage
from messages.paths import path_of_text, text_of_path

__all__ = ["REFERENCE", "Pictures"]

REFERENCE = "file:"
"""Prefix of an ``image_url`` that names a file; `Pictures.filled` replaces it by the image."""
GONE = "(an image was shown here that is no longer available)"
"""Text that the model is sent in place of an image whose file is gone, or that is left out."""
_ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg"}


class Pictures:
    """Keeps images in a folder, and inserts them into items just before these are sent.

    Messages, the saved state and the journal of history hold only references to them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, message: SendImage) -> SentImage:
        """Write an image to a file, and return the reference to it.

        Raises:
            OSError: the file cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{message.item_id.replace(os.sep, '_')}{_ENDINGS[message.media_type]}"
        path = self._folder / name
        # The process may die while it writes: the file appears under its name only when complete.
        half = path.with_name(f"{name}.part")
        half.write_bytes(message.data)
        half.replace(path)
        return SentImage(
            text_of_path(str(path)), message.media_type, message.detail, len(message.data)
        )

    def filled(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return an item with its images inserted; the same object if it has none."""
        content = item.get("content") or []
        if not any(_is_reference(part) for part in content):
            return item
        return {**item, "content": [_filled(part) for part in content]}


def _is_reference(part: dict[str, Any]) -> bool:
    return str(part.get("image_url", "")).startswith(REFERENCE)


def _filled(part: dict[str, Any]) -> dict[str, Any]:
    """Return a content part with its image as a data URL, or `GONE` if there is no file."""
    if not _is_reference(part):
        return part
    media_type, _, path = part["image_url"].removeprefix(REFERENCE).partition(":")
    try:
        data = Path(path_of_text(path)).read_bytes()
    except OSError:
        return {"type": "input_text", "text": GONE}
    encoded = base64.b64encode(data).decode()
    return {**part, "image_url": f"data:{media_type};base64,{encoded}"}
