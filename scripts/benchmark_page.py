"""``python scripts/benchmark.py page``: the page beside a sound card, and beside no view at all.

The answers: the same question is asked at the page, in a real browser, and at the virtual sound
card (``scripts/virtual-sound-card up``), in turn, with the sandbox as the server. The time is
that of `PlaybackStarted`, from the end of the speech, as the server heard it, until the first
sample was heard. It is also taken from the two sounds themselves, in the recording of the session
at the card, and in the browser on the clock of its audio thread: from the last loud sample of the
microphone to the first one of the loudspeaker. The half second in which the server waits whether
the user goes on is in it.

The blocks: two services at the same time, of which one shows its caller a view.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import benchmark_service
import numpy as np

_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT))

from rtvoice.testing import SandboxServer, speech  # noqa: E402
from tests.browser import Browser, Page  # noqa: E402
from tests.web import Web  # noqa: E402

_QUESTIONS = 10
_WORDS = "what is your name"
_LOUD = 800
_BLOCKS_S = 30.0
_RECORD = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...rest) {
  const isEnd = to instanceof AudioDestinationNode;
  if (isEnd || this instanceof MediaStreamAudioSourceNode) {
    if (!window.sounds) {
      window.sounds = [[], []];
      window.merger = this.context.createChannelMerger(2);
      const record = this.context.createScriptProcessor(4096, 2, 1);
      record.onaudioprocess = ({ inputBuffer }) => {
        for (const side of [0, 1]) {
          const samples = inputBuffer.getChannelData(side);
          window.sounds[side].push(Array.from(samples, (x) => Math.round(x * 32767)));
        }
      };
      connect.call(window.merger, record);
      connect.call(record, this.context.destination);
      window.recorder = record;
    }
    connect.call(this, window.merger, 0, isEnd ? 1 : 0);
  }
  return connect.call(this, to, ...rest);
};
"""
"""Records both sides of the page on one clock."""


def measure() -> None:
    """Print both tables."""
    _print_answers()
    asyncio.run(_print_blocks())


# -- answers ----------------------------------------------------------------------------------


def _print_answers() -> None:
    rows: list[tuple[str, Sequence[float]]] = []
    with tempfile.TemporaryDirectory() as name, SandboxServer(pace=4, timeout_s=60) as sandbox:
        questions = _write_questions(Path(name) / "questions.wav")
        if os.environ.get("VIRTUAL_SOUND_CARD"):
            at_card, by_record = _at_card(sandbox, questions)
            rows += [("at a card", at_card), ("at a card, by its sound", by_record)]
        else:
            print('no card: eval "$(scripts/virtual-sound-card up)" gives one')
        at_page, by_sound = _at_page(sandbox, questions)
        rows += [("at the page", at_page), ("at the page, by its sound", by_sound)]
    print(f"\nend of a question until the first sound of the answer, {_QUESTIONS} questions, ms")
    for what, found in rows:
        low, high = min(found), max(found)
        print(f"  {what:28} median {statistics.median(found):6.0f}   {low:.0f} to {high:.0f}")


def _write_questions(path: Path) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", "NONE"))
        for number in range(_QUESTIONS):
            # Not always in the same place of a block.
            pause = bytes(2 * (24_000 * 3 + 240 * (number % 4)))
            file.writeframes(pause + speech(_WORDS))
        file.writeframes(bytes(2 * 24_000 * 4))
    return path


def _waits(events: Sequence[dict[str, Any]]) -> list[float]:
    starts = [event for event in events if event["event"] == "playback_started"]
    return [start["after_speech_ms"] for start in starts if start["after_speech_ms"] is not None]


def _at_card(sandbox: SandboxServer, questions: Path) -> tuple[list[float], list[float]]:
    record = questions.with_name("record.wav")
    for _ in range(_QUESTIONS):
        sandbox.hear(_WORDS)
    command = [sys.executable, "-m", "supervisor", "--server", sandbox.url, "--events", "-"]
    devices = ("--input", "default", "--output", "default", "--full-duplex")
    command += ["--record", str(record)]
    with subprocess.Popen([*command, *devices], cwd=_ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        events: list[dict[str, Any]] = []
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "session_started":
                player = subprocess.Popen(["paplay", "--device=room", str(questions)])
            if sum(event["event"] == "playback_ended" for event in events) == _QUESTIONS:
                break
        player.kill()
        player.wait()
        process.terminate()
        process.stdout.read()
    with wave.open(str(record)) as file:
        sides = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return _waits(events), _by_sound(*np.abs(sides.astype(np.int32)).T)


def _at_page(sandbox: SandboxServer, questions: Path) -> tuple[list[float], list[float]]:
    for _ in range(_QUESTIONS):
        sandbox.hear(_WORDS)
    with _page(questions, sandbox.url) as page:
        page.press("#start")
        answered = "document.querySelectorAll('li.assistant.complete').length"
        for count in range(1, _QUESTIONS + 1):
            page.until(f"{answered} === {count}")
        page.run("document.querySelector('#events-panel').open = true")
        page.run("document.querySelector('#filter').value = 'playback_started'")
        page.run("document.querySelector('#filter').oninput()")
        lines = page.run("[...document.querySelectorAll('#events li')].map((e) => e.innerText)")
        sounds = [np.array(page.run(f"window.sounds[{side}].flat()")) for side in (0, 1)]
        page.press("#leave")
    lines.reverse()  # the newest comes first
    waits = [float(line.partition("after_speech_ms=")[2].split()[0]) for line in lines]
    return waits, _by_sound(*sounds)


@contextlib.contextmanager
def _page(microphone: Path, server: str) -> Iterator[Page]:
    browser = Browser(microphone)
    try:
        with Web(microphone.parent, RTVOICE_SERVER=server) as web, browser.page() as page:
            page.call("Page.addScriptToEvaluateOnNewDocument", source=_RECORD)
            page.open(web.url)
            yield page
    finally:
        browser.close()


def _by_sound(microphone: np.ndarray[Any, Any], loudspeaker: np.ndarray[Any, Any]) -> list[float]:
    """Return the time from the end of each question to the beginning of its answer, in ms."""
    asked = np.flatnonzero(np.abs(microphone) > _LOUD)
    heard = np.flatnonzero(np.abs(loudspeaker) > _LOUD)
    ends = asked[np.flatnonzero(np.diff(asked, append=asked[-1] + 48_000) > 24_000)]
    firsts = [heard[np.searchsorted(heard, end)] for end in ends if end < heard[-1]]
    return [(first - end) / 24 for first, end in zip(firsts, ends, strict=False)]


# -- blocks -----------------------------------------------------------------------------------


async def _print_blocks() -> None:
    hellos = {"without a view": '{"rate": 24000}', "with a view": '{"rate": 24000, "view": true}'}
    make_server, serving, make_caller = (
        getattr(benchmark_service, f"_{name}") for name in ("Server", "serving", "Caller")
    )
    print("\ncaptured block → server, two services at the same time, ms")
    async with contextlib.AsyncExitStack() as stack:
        servers: dict[str, Any] = {}
        for what, hello in hellos.items():
            server = servers[what] = make_server()
            stack.callback(server.close)
            _, port = stack.enter_context(serving(server.url, "--view", "all"))
            caller = make_caller(port, len(servers), hello)
            stack.push_async_callback(caller.hang_up)
            await caller.started
        await asyncio.sleep(9.0)
        for server in servers.values():
            await server.ages_ms()
        await asyncio.sleep(_BLOCKS_S)
        for what, server in servers.items():
            ages = await server.ages_ms()
            p99 = ages[int(len(ages) * 0.99)]
            print(f"  {what:28} median {statistics.median(ages):6.1f}   p99 {p99:.1f}")
