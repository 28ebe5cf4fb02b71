"""The images of a conversation, kept in files, which outlive this process."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from messages import SendImage, SentImage

__all__ = ["REFERENCE", "Pictures"]

REFERENCE = "file:"
"""With this begins the ``image_url`` of an item for which the image is still to be read."""
GONE = "(an image was shown here that is not there any more)"
_ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg"}


class Pictures:
    """Keeps images in a folder, and puts them into items on their way to the server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, message: SendImage) -> SentImage:
        """Write an image to a file of its own.

        Raises:
            OSError: that is not possible.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{message.item_id.replace(os.sep, '_')}{_ENDINGS[message.media_type]}"
        path = self._folder / name
        half = path.with_name(f"{name}.part")
        half.write_bytes(message.data)
        half.replace(path)
        return SentImage(str(path), message.media_type, message.detail, len(message.data))

    def filled(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return an item with its images in it; as the item itself, if it has none."""
        content = item.get("content") or []
        if not any(_is_reference(part) for part in content):
            return item
        return {**item, "content": [_filled(part) for part in content]}


def _is_reference(part: dict[str, Any]) -> bool:
    return str(part.get("image_url", "")).startswith(REFERENCE)


def _filled(part: dict[str, Any]) -> dict[str, Any]:
    if not _is_reference(part):
        return part
    media_type, _, path = part["image_url"].removeprefix(REFERENCE).partition(":")
    try:
        data = Path(path).read_bytes()
    except OSError:
        return {"type": "input_text", "text": GONE}
    encoded = base64.b64encode(data).decode()
    return {**part, "image_url": f"data:{media_type};base64,{encoded}"}
