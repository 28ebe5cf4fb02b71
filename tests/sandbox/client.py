"""A client of the Realtime API for the tests, and speech for it to say."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from functools import lru_cache
from typing import Any

import pytest
from websockets.sync.client import connect

from actors.devices.sound.resample import resample

TIMEOUT_S = 15.0
ESPEAK = shutil.which("espeak-ng")
MS = 48
"""Bytes of int16 at 24 kHz in a millisecond."""

CLOCK = {"type": "function", "name": "get_current_time", "description": "The time."}


def silence(ms: int) -> bytes:
    return bytes(ms * MS)


@lru_cache(maxsize=256)
def spoken(text: str, voice: str = "en-us", speed: int = 165) -> bytes:
    """Speak a text with espeak-ng: int16 at 24 kHz. Skips the test where there is none."""
    if ESPEAK is None:
        pytest.skip("espeak-ng is not installed: nothing can be said to the sandbox")
    wav = subprocess.run(
        [ESPEAK, "-v", voice, "-s", str(speed), "--stdout", text], capture_output=True, check=True
    ).stdout
    return resample(wav[44 : 44 + (len(wav) - 44) // 2 * 2], 22050, 24000)


class Client:
    """A connection that sends events and collects what it receives; a context manager."""

    def __init__(self, url: str, **options: Any) -> None:
        self._connecting = connect(url, max_size=None, compression=None, **options)
        self.received: list[dict[str, Any]] = []

    def __enter__(self) -> Client:
        self.socket = self._connecting.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def receive(self) -> dict[str, Any]:
        event = json.loads(self.socket.recv(TIMEOUT_S))
        self.received.append(event)
        return event

    def expect(self, kind: str) -> dict[str, Any]:
        """Wait for an event of a type; what comes before it is kept in `received`."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            event = self.receive()
            if event["type"] == kind:
                return event
        raise AssertionError(f"no {kind} within {TIMEOUT_S} s: {self.kinds()[-20:]}")

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.received]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.received if event["type"] == kind]

    def configure(self, **session: Any) -> dict[str, Any]:
        """Change the session and wait until it is changed."""
        self.send("session.update", session={"type": "realtime", **session})
        return self.expect("session.updated")["session"]

    def hear(self, pcm: bytes, cut: int = 40 * MS) -> None:
        """Append audio in blocks."""
        for at in range(0, len(pcm), cut):
            audio = base64.b64encode(pcm[at : at + cut]).decode()
            self.send("input_audio_buffer.append", audio=audio)

    def type(self, text: str, role: str = "user") -> None:
        """Add a typed message."""
        kind = "output_text" if role == "assistant" else "input_text"
        content = [{"type": kind, "text": text}]
        item = {"type": "message", "role": role, "content": content}
        self.send("conversation.item.create", item=item)

    def ask(self, text: str, **response: Any) -> dict[str, Any]:
        """Type a message, ask for an answer and wait for its end: the `response` of it."""
        self.type(text)
        return self.answer(**response)

    def answer(self, **response: Any) -> dict[str, Any]:
        """Ask for an answer and wait for its end."""
        self.send("response.create", response=response)
        return self.expect("response.done")["response"]


def said(response: dict[str, Any]) -> str:
    """What a response says, in sound or in text."""
    parts = [part for item in response["output"] for part in item.get("content", [])]
    return " ".join(part.get("transcript") or part.get("text") or "" for part in parts)
