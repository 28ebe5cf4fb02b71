"""Take the picture of the page that the README shows: a real conversation in a real browser.

    python scripts/picture_of_page.py docs/images/page.png
    python scripts/picture_of_page.py page.png --size 360x740 --dark

It needs Chromium and espeak-ng. The server is the sandbox, as a test commands it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import wave
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rtvoice.testing import SandboxServer, speech
from tests.browser import Browser, Page
from tests.web import Web

_LISTENS = "document.querySelector('#hint').textContent === 'Speak.'"
_HEARD = "[...document.querySelectorAll('li.assistant')].at(-1)?.querySelector('.heard')"


def _type(page: Page, text: str) -> None:
    page.run("document.querySelector('#text').focus()")
    page.type(text)
    page.key("Enter")


def _converse(page: Page, url: str) -> None:
    """Have the conversation of the picture: a question, a tool, an interruption, a death."""
    page.open(url)
    page.press("#start")
    page.until("document.querySelectorAll('li.assistant.complete').length === 1")
    page.until(_LISTENS)
    _type(page, "what time is it")
    page.until("document.querySelectorAll('li.assistant.complete').length === 2")
    page.until(_LISTENS)
    _type(page, "tell me a story")
    page.until(f"{_HEARD}?.textContent.startsWith('Once upon') && {_HEARD}.textContent.length > 60")
    page.run("document.querySelector('[aria-label=\"Kill speaker\"]').click()")
    page.until("document.querySelector('#processes tr[data-state=back]')")
    page.until(f"{_HEARD}.textContent.length > 90")
    page.key("Escape")
    page.until("document.querySelector('li.assistant s')")
    _type(page, "count to twenty")
    page.until(f"{_HEARD}?.textContent.startsWith('One') && {_HEARD}.textContent.length > 30")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--size", default="1280x800")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    scheme = "dark" if options.dark else "light"
    with tempfile.TemporaryDirectory() as name, SandboxServer(pace=4) as sandbox:
        folder = Path(name)
        with wave.open(str(folder / "question.wav"), "wb") as file:
            file.setparams((1, 2, 24_000, 0, "NONE", "NONE"))
            file.writeframes(bytes(2 * 24_000 * 3) + speech("what is your name") + bytes(48_000))
        sandbox.hear("what is your name")
        browser = Browser(folder / "question.wav")
        try:
            with (
                Web(folder, RTVOICE_SERVER=sandbox.url) as web,
                browser.page(width, height, prefers_color_scheme=scheme) as page,
            ):
                _converse(page, web.url)
                options.file.parent.mkdir(parents=True, exist_ok=True)
                page.picture(options.file)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
