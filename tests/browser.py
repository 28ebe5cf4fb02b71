"""A real browser for tests: Chromium without a window, driven by its DevTools protocol.

Its microphone is a WAV file (``--use-file-for-fake-audio-capture``), which it plays once for each
``getUserMedia``; what it plays goes nowhere.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.rig import TIMEOUT_S

__all__ = ["Browser", "Page", "chromium"]

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--mute-audio", "--hide-scrollbars"),
    *("--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding"),
)


def chromium() -> str | None:
    """Return the program; None: it is not installed."""
    return (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


def _capturing(microphone: Path | None) -> Iterator[str]:
    if microphone is not None:
        yield "--use-fake-device-for-media-stream"
        yield f"--use-file-for-fake-audio-capture={microphone}%noloop"


class Browser:
    """A browser, until it is closed. Its pages share nothing (`page`).

    Args:
        microphone: What its microphone hears: a WAV file. None: it has no microphone.
        flags: Further flags.
    """

    def __init__(self, microphone: Path | None, *flags: str) -> None:
        self._stack = contextlib.ExitStack()
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._folder = self._stack.enter_context(folder)
        program = chromium()
        assert program is not None
        self._process = subprocess.Popen(
            [
                *(program, *_FLAGS, f"--user-data-dir={self._folder}"),
                *_capturing(microphone),
                *("--remote-debugging-port=0", *flags, "about:blank"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "no_proxy": "127.0.0.1,localhost"},
        )
        assert self._process.stderr is not None
        address = self._address(self._process.stderr)
        self._stack.callback(self._process.stderr.close)
        self._drain = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._drain.start()
        self._socket = self._stack.enter_context(
            connect(address, max_size=None, compression=None, proxy=None)
        )
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._pages: dict[str, Page] = {}
        self._news = threading.Condition()
        threading.Thread(target=self._read, args=(self._socket,), daemon=True).start()

    def _address(self, lines: Any) -> str:
        for line in lines:
            if found := re.search(r"ws://\S+", line):
                return found[0]
        raise AssertionError("the browser has not started")

    def _read(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for text in socket:
                message = json.loads(text)
                with self._news:
                    if "id" in message:
                        self._answers[message["id"]] = message
                    elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                        page.events.append(message)
                    self._news.notify_all()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol."""
        number = next(self._ids)
        order: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(order | ({"sessionId": session} if session else {})))
        answer = self.wait(lambda: self._answers.pop(number, None), method)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, find: Callable[[], Any], what: str) -> Any:
        """Wait for something that the reader has put down."""
        deadline = time.monotonic() + 3 * TIMEOUT_S
        with self._news:
            while not (found := find()):
                left = deadline - time.monotonic()
                assert left > 0, f"{what}: nothing came"
                self._news.wait(left)
        return found

    @contextlib.contextmanager
    def page(self, width: int = 1280, height: int = 800, **media: str) -> Iterator[Page]:
        """Give a page in a profile of its own; ``media``: features such as a colour scheme."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, session["sessionId"], context)
        self._pages[page.session] = page
        try:
            page.prepare(width, height, media)
            yield page
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)
            del self._pages[page.session]

    def close(self) -> None:
        """End it with all its processes."""
        with contextlib.suppress(ConnectionClosed, RuntimeError, AssertionError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._drain.join(10)
        self._stack.close()


class Page:
    """One page of the browser."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self.session = session
        self.events: list[dict[str, Any]] = []
        """Events of the protocol, as they came."""
        self._browser = browser
        self._context = context

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol for this page."""
        return self._browser.call(method, self.session, **parameters)

    def prepare(self, width: int, height: int, media: dict[str, str]) -> None:
        allowed = {"permissions": ["audioCapture"], "browserContextId": self._context}
        self._browser.call("Browser.grantPermissions", **allowed)
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, height)
        features = [{"name": name.replace("_", "-"), "value": media[name]} for name in media]
        self.call("Emulation.setEmulatedMedia", features=features)

    def deny(self, permission: str, url: str) -> None:
        """Refuse pages of an origin a permission, as its user does."""
        origin = "/".join(url.split("/")[:3])
        about = {"permission": {"name": permission}, "setting": "denied", "origin": origin}
        self._browser.call("Browser.setPermission", browserContextId=self._context, **about)

    def size(self, width: int, height: int) -> None:
        """Change the size of the window."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def open(self, url: str) -> int:
        """Open an address; return the HTTP status."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.expect("Page.loadEventFired")
        return int(self.expect("Network.responseReceived", type="Document")["response"]["status"])

    def expect(self, method: str, **fields: Any) -> dict[str, Any]:
        """Wait for an event of the protocol."""

        def find() -> dict[str, Any] | None:
            for event in self.events:
                if event["method"] == method and fields.items() <= event["params"].items():
                    return event["params"] or {"": ""}
            return None

        found: dict[str, Any] = self._browser.wait(find, method)
        return found

    def run(self, script: str) -> Any:
        """Return the value of an expression, which may be a promise."""
        answer = self.call(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"].get("exception", answer)))
        return answer["result"].get("value")

    def until(self, script: str, what: str = "") -> Any:
        """Wait until an expression is true; it is looked at with each frame of the page."""
        wait = f"""new Promise((done) => {{
            const look = () => {{
                let found = false;
                try {{ found = {script}; }} catch {{}}
                if (found) done(found instanceof Element || found); else setTimeout(look, 10);
            }};
            look();
            setTimeout(() => done(null), {int(2000 * TIMEOUT_S)});
        }})"""
        found = self.run(wait)
        assert found, f"{what or script}; the page shows: {self.text()[:1500]}"
        return found

    def text(self) -> str:
        """Return what is to be read on the page."""
        return str(self.run("document.body.innerText"))

    def press(self, selector: str) -> None:
        """Press a button with the mouse."""
        box = self.until(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect(); "
            "return !e.disabled && r.width && [r.x + r.width / 2, r.y + r.height / 2]; })()",
            f"{selector} cannot be pressed",
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.call("Input.insertText", text=text)

    def key(self, name: str, *kinds: str) -> None:
        """Press a key, and release it."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9, " ": 32}[name]
        about: dict[str, Any] = {"key": name, "windowsVirtualKeyCode": code}
        about["code"] = "Space" if name == " " else name
        if name in ("Enter", " "):
            about["text"] = "\r" if name == "Enter" else " "
        for kind in kinds or ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **about)

    def reload(self) -> None:
        """Load the page again."""
        self.events.clear()
        self.call("Page.reload")
        self.expect("Page.loadEventFired")

    def picture(self, path: Path) -> None:
        """Write what is seen into a PNG file."""
        import base64

        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
