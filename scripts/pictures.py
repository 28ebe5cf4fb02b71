"""Take the pictures of the console that the documents show, from a real conversation.

python scripts/pictures.py docs/images

It needs textual, and espeak-ng, which asks the question.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import re
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rtvoice.command.assistant import ASSISTANT
from rtvoice.command.console import Console
from rtvoice.command.conversation import CommandSession
from rtvoice.console.app import ConsoleApp
from rtvoice.console.link import Link
from rtvoice.view import View

_SIZE = (120, 27)
_WAIT_S = 30.0
_FONT = "font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def question(folder: Path) -> Path:
    """Return a file in which somebody asks for the time, and is silent for a minute then."""
    raw, path = folder / "raw.wav", folder / "question.wav"
    words = ["espeak-ng", "-v", "en-us", "-s", "150", "-w", str(raw), "what time is it"]
    subprocess.run(words, check=True)
    with wave.open(str(raw)) as file:
        rate, spoken = file.getframerate(), file.readframes(file.getnframes())
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * rate) + spoken + bytes(120 * rate))
    return path


class Camera:
    """Drives the app, and takes pictures of it."""

    def __init__(self, app: ConsoleApp, pilot: Any, folder: Path) -> None:
        self._app = app
        self._pilot = pilot
        self._folder = folder

    async def until(self, is_shown: Callable[[str], object], what: str) -> None:
        """Wait until the screen shows something."""
        end = time.monotonic() + _WAIT_S
        while not is_shown(self._app.export_screenshot(simplify=True).replace("&#160;", " ")):
            if time.monotonic() > end:
                sys.exit(f"the console does not show {what}")
            await self._pilot.pause(0.05)

    async def shows(self, text: str) -> None:
        """Wait until a text is shown."""
        await self.until(lambda screen: text in screen, text)

    async def type(self, line: str) -> None:
        """Type a line, and send it."""
        await self._pilot.press("ctrl+t")
        names = {" ": "space", "/": "slash"}
        await self._pilot.press(*(names.get(each, each) for each in line), "enter", "escape")

    def take(self, name: str) -> None:
        """Write a picture; its font is the reader's own, not one of another server."""
        svg = self._app.export_screenshot(title="python -m supervisor")
        svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
        svg = re.sub(r"font-family: Fira Code[^;]*", _FONT, svg)
        svg = "\n".join(line.rstrip() for line in svg.splitlines() if line.strip())
        (self._folder / f"{name}.svg").write_text(f"{svg}\n", encoding="utf-8")


async def pictures(app: ConsoleApp, folder: Path) -> None:
    """Hold the conversation."""
    async with app.run_test(size=_SIZE) as pilot:
        camera = Camera(app, pilot, folder)
        await camera.shows("p50")
        await camera.shows("LISTENING")
        await camera.type("tell me a story")
        await camera.shows("climbed")
        await asyncio.sleep(2.5)
        await pilot.press("enter")
        await camera.shows("[interrupted]")
        await camera.type("count to twenty")
        await camera.shows("SPEAKING")
        await asyncio.sleep(1.5)
        camera.take("console")
        await camera.type("/kill speaker")
        await camera.shows("killed by SIGKILL")
        await asyncio.sleep(0.3)
        camera.take("console-killed")
        await camera.shows("✔ speaker")
        await asyncio.sleep(0.5)
        camera.take("console-back")
        await pilot.press("q")


def _obey(session: CommandSession, link: Link) -> None:
    session.obey()
    link.over()


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write them")
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(transcript=io.StringIO(), errors=sys.stderr)
    link = Link(lambda _: None)
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        session = CommandSession(
            {
                **ASSISTANT.describe(),
                "server": "sandbox",
                "input": question(Path(temporary)).name,
                "output": "null",
                "probes": True,
            },
            link,
            console,
        )
        session.begin()
        threading.Thread(target=_obey, args=(session, link), daemon=True).start()
        link.begin(session)
        asyncio.run(pictures(ConsoleApp(link, session, View()), folder))
        link.wait_over(_WAIT_S)
        session.finish()
    console.close()


if __name__ == "__main__":
    main()
