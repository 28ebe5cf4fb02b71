"""Tokens with which a lost caller takes up the conversation again, also in another program."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from pathlib import Path

from actors.files import path_of, why_not
from messages.errors import InvalidSettingError
from messages.paths import printable

__all__ = ["Journals", "Token"]

_ID = re.compile(r"[0-9a-f]{16}")


class Token:
    """The token of one conversation: its id, and a secret."""

    def __init__(self, conversation: str, sha256: str | None = None) -> None:
        """Make a new token, or one of which only the hash is known.

        Args:
            conversation: The id of the conversation.
            sha256: The hash; None: make a token.
        """
        self.text = "" if sha256 else f"{conversation}.{secrets.token_urlsafe(24)}"
        """Empty while only its hash is known."""
        self.sha256 = sha256 or _hash(self.text)

    def fits(self, text: str) -> bool:
        """Return whether it is this token; the time taken says nothing about how close it is."""
        fits = hmac.compare_digest(self.sha256, _hash(text))
        if fits:
            self.text = text
        return fits


class Journals:
    """A folder with a journal for each conversation, and what tells whose it is.

    ``ID.jsonl`` is the journal, which stays. ``ID.call`` is there while the caller may come again;
    it has a hash of the token, not the token.

    Raises:
        InvalidSettingError: The folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], keep_s: float) -> None:
        self._folder = path_of(os.fspath(folder))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            shown = printable(str(self._folder))
            problem = f"{shown} cannot be written: {why_not(self._folder, error)}"
            raise InvalidSettingError("journals", problem) from None
        self._keep_s = keep_s
        self._since = time.time()

    def path(self, conversation: str) -> Path:
        """Return the path of a journal."""
        return self._folder / f"{conversation}.jsonl"

    def open(self, conversation: str, token: Token) -> None:
        """Note whose conversation it is.

        Raises:
            OSError: The folder cannot be written.
        """
        text = json.dumps({"sha256": token.sha256})
        path = self._claim(conversation)
        temporary = path.with_suffix(".new")
        temporary.write_text(text, encoding="ascii")
        temporary.replace(path)

    def close(self, conversation: str) -> None:
        """Forget whose it was: the conversation is over."""
        with contextlib.suppress(OSError):
            self._claim(conversation).unlink()

    def find(self, token: str) -> str | None:
        """Return the id of the conversation of an earlier program that goes on with this token."""
        conversation = token.partition(".")[0]
        if not _ID.fullmatch(conversation):
            return None
        journal = self.path(conversation)
        try:
            claim = json.loads(self._claim(conversation).read_text(encoding="ascii"))
            latest = max(journal.stat().st_mtime, self._since)
        except (OSError, ValueError):
            return None
        if not hmac.compare_digest(str(claim.get("sha256")), _hash(token)):
            return None
        return conversation if time.time() - latest <= self._keep_s else None

    def _claim(self, conversation: str) -> Path:
        return self._folder / f"{conversation}.call"


def _hash(token: str) -> str:
    # JSON may bring half a character, which UTF-8 has no bytes for.
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
