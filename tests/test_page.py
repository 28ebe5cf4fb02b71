"""The page in a real browser: what it hears, plays and shows, and how it goes on."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

import rtvoice.web
from rtvoice import Agent
from rtvoice.service import CallInfo, Service
from rtvoice.service.serving import address_of, listen
from rtvoice.testing import SandboxServer, speech
from tests.browser import Browser, Page, chromium
from tests.rig import TIMEOUT_S
from tests.sweeper import shared
from tests.test_command import environment_of, speaks
from tests.web import Web, Wire

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="needs Chromium: ./scripts/test installs it"),
    pytest.mark.skipif(not speaks, reason="needs espeak-ng: ./scripts/run --setup"),
]

SPEAK = "document.querySelector('#hint').textContent === 'Speak.'"
RECORD = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (to, ...rest) {
  if (to instanceof AudioDestinationNode && !window.heard) {
    window.heard = [];
    const record = this.context.createScriptProcessor(1024, 1, 1);
    record.onaudioprocess = ({ inputBuffer }) => {
      window.heard.push(Array.from(inputBuffer.getChannelData(0), (x) => Math.round(x * 32767)));
    };
    connect.call(this, record);
    connect.call(record, this.context.destination);
    window.recorder = record;
  }
  return connect.call(this, to, ...rest);
};
"""
"""Records what is played, beside the page's own code."""
DROP = """(async () => {
    const canvas = document.createElement("canvas");
    const blob = await new Promise((done) => canvas.toBlob(done, "image/webp"));
    const data = new DataTransfer();
    data.items.add(new File([blob], "picture.webp", { type: "image/webp" }));
    const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
    document.querySelector("#talk").dispatchEvent(drop);
})()"""
"""Drops an image."""


def microphone(path: Path, *sounds: bytes) -> Path:
    """Write what a microphone hears: 16 bits at 24 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", "NONE"))
        file.writeframes(b"".join(sounds))
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Give a browser in a silent room."""
    path = microphone(tmp_path_factory.mktemp("microphone") / "silence.wav", bytes(48_000))
    with shared():
        browser = Browser(path)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(pace=4, timeout_s=2 * TIMEOUT_S) as server:
        yield server


@pytest.fixture(scope="module")
def web(sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with shared():
        web = Web(tmp_path_factory.mktemp("web"), RTVOICE_SERVER=sandbox.url)
    yield web
    web.end()


@contextlib.contextmanager
def conversation(browser: Browser, web: Web) -> Iterator[Page]:
    """Give the page, in which a conversation has started."""
    with browser.page() as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=RECORD)
        page.open(web.url)
        begin(page)
        yield page
        leave(page)
        complaints = [e for e in page.events if e["method"] == "Runtime.exceptionThrown"]
        assert complaints == []


@pytest.fixture
def page(browser: Browser, web: Web) -> Iterator[Page]:
    with conversation(browser, web) as page:
        yield page


def begin(page: Page) -> None:
    page.press("#start")
    page.until(SPEAK, "nobody listens")


def leave(page: Page) -> None:
    if page.run("!document.querySelector('#controls').hidden"):
        page.press("#leave")
        page.until("document.querySelector('#phase').textContent === 'Ended'")


def type_in(page: Page, text: str) -> None:
    page.run("document.querySelector('#text').focus()")
    page.type(text)
    page.key("Enter")


def says(kind: str, text: str) -> str:
    """Return the expression that is true when a turn is shown."""
    found = f"[...document.querySelectorAll('li.{kind} .text')]"
    return f"{found}.some((e) => e.textContent.includes({json.dumps(text)}))"


def heard(page: Page) -> np.ndarray[Any, Any]:
    """Return what was played."""
    return np.array(page.run("window.heard.flat()"), np.float64)


def is_silent(page: Page) -> None:
    """Wait until a quarter of a second of silence has been played."""
    page.until("window.heard.slice(-6).every((block) => block.every((x) => Math.abs(x) < 30))")


def likeness(part: np.ndarray[Any, Any], whole: np.ndarray[Any, Any]) -> float:
    """Return how much a sound is there in a longer one, wherever: 1 is all of it, unchanged."""
    size = len(whole) + len(part)
    product = np.fft.irfft(np.fft.rfft(whole, size) * np.conj(np.fft.rfft(part, size)), size)
    at = int(np.argmax(product))
    found = whole[at : at + len(part)]
    if len(found) < len(part):
        return 0.0
    return float(product[at] / (np.linalg.norm(found) * np.linalg.norm(part)))


def sent_sound(sandbox: SandboxServer, since: int) -> np.ndarray[Any, Any]:
    deltas = [e for e in sandbox.sent[since:] if e["type"] == "response.output_audio.delta"]
    return np.frombuffer(b"".join(base64.b64decode(e["delta"]) for e in deltas), "<i2") * 1.0


def test_a_spoken_question_is_answered_in_sound(
    web: Web, sandbox: SandboxServer, tmp_path: Path
) -> None:
    sandbox.hear("what is your name")
    since = len(sandbox.sent)
    question = bytes(2 * 24_000) + speech("what is your name")
    again = bytes(8 * 48_000) + question  # should a busy machine start too late for the first
    browser = Browser(microphone(tmp_path / "question.wav", question, again))
    try:
        with conversation(browser, web) as page:
            page.until(says("user", "what is your name"), "the question is not shown")
            page.until(says("assistant", "My name is Sandbox."), "the answer is not shown")
            page.until("document.querySelector('#phase').textContent === 'Listening'")
            is_silent(page)
            sound, played = sent_sound(sandbox, since), heard(page)
            steps = page.until("document.querySelector('.waterfall')?.innerText")
            unheard = page.run("document.querySelector('li.assistant .unheard')")
    finally:
        browser.close()

    assert len(sound) > 12_000
    alike = [likeness(part, played) for part in np.array_split(sound, 4)]
    assert sum(each > 0.9 for each in alike) >= 3, alike  # a busy machine may leave one gap
    assert "First sound heard" in steps
    assert unheard is None


def test_an_interrupted_answer_is_struck_where_it_was_heard_last(page: Page) -> None:
    type_in(page, "tell me a story")
    page.until("document.querySelector('li.assistant .heard')?.textContent.length > 20")
    page.key("Escape")
    page.until("document.querySelector('li.assistant s.unheard')", "nothing is struck")
    is_silent(page)

    words = page.run("document.querySelector('li.assistant .heard').textContent")
    assert words.startswith("Once upon a time")
    assert page.run("document.querySelector('li.assistant s').textContent")


def test_a_story_goes_on_when_the_speaker_is_killed(page: Page) -> None:
    type_in(page, "count to twenty")
    page.until("document.querySelector('li.assistant .heard')?.textContent.length > 10")
    page.press('[aria-label="Kill speaker"]')
    row = "document.querySelector('#processes tr[data-state=back]')"
    page.until(row, "the speaker does not come back")
    back = page.run(f"{row}.innerText")
    before = len(heard(page))
    page.until(f"window.heard.flat().slice({before}).some((x) => Math.abs(x) > 1000)")

    assert re.search(r"speaker\s+back in \d+ ms", back)
    page.key("Escape")


def test_the_conversation_goes_on_after_the_page_is_loaded_again(
    page: Page, sandbox: SandboxServer
) -> None:
    connections = sandbox.connections
    type_in(page, "what is your name")
    page.until(says("assistant", "My name is Sandbox."))
    page.until(f"{SPEAK} && !document.querySelector('li.assistant .unheard')")
    page.reload()
    page.until(says("assistant", "My name is Sandbox."), "the talk is gone")
    page.until("!document.querySelector('#controls').hidden")
    type_in(page, "thank you")
    page.until("document.querySelectorAll('li.assistant').length === 2")

    assert sandbox.connections == connections


def test_a_lost_socket_is_opened_again(browser: Browser, web: Web) -> None:
    with Wire(web.port) as wire, browser.page() as page:
        page.open(web.url.replace(str(web.port), str(wire.port), 1))
        begin(page)
        type_in(page, "what is your name")
        page.until(says("assistant", "My name is Sandbox."))
        wire.cut()
        page.until("document.querySelector('#phase').textContent === 'Reconnecting'")
        wire.mend()
        page.until(SPEAK, "it does not go on")
        type_in(page, "thank you")
        page.until("document.querySelectorAll('li.assistant').length === 2")
        leave(page)


@pytest.mark.long
def test_a_socket_that_has_died_without_a_word_is_replaced(browser: Browser, web: Web) -> None:
    with Wire(web.port) as wire, browser.page() as page:
        page.open(web.url.replace(str(web.port), str(wire.port), 1))
        begin(page)
        wire.freeze()  # as after a sleep of the machine, or in another network
        page.until("document.querySelector('#phase').textContent === 'Reconnecting'")
        page.until(SPEAK, "it does not go on")
        type_in(page, "thank you")
        page.until("document.querySelectorAll('li.assistant').length === 1")
        leave(page)


def test_an_image_that_is_dropped_is_shown_to_the_model(page: Page, sandbox: SandboxServer) -> None:
    page.run(DROP)
    page.until("document.querySelector('li.user .image')", "no image is shown")

    sandbox.wait_for(
        lambda: any("input_image" in json.dumps(e) for e in sandbox.of("conversation.item.create"))
    )


def test_who_is_muted_is_told_so(page: Page) -> None:
    page.press("#mute")
    page.until("document.querySelector('#phase').textContent === 'Muted'")
    page.press("#mute")
    page.until(SPEAK)


def test_a_page_of_another_origin_may_not_call(browser: Browser, web: Web) -> None:
    call = f"""new Promise((done) => {{
        const socket = new WebSocket("ws://127.0.0.1:{web.port}/talk?key={web.key}");
        socket.onopen = () => done("open");
        socket.onclose = () => done("closed");
    }})"""
    with browser.page() as page, elsewhere() as url:
        page.open(url)
        from_elsewhere = page.run(call)
        page.open(web.url)
        from_ours = page.run(call)

    assert (from_elsewhere, from_ours) == ("closed", "open")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def elsewhere() -> Iterator[str]:
    """Serve a page of another origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


WORKLET = """(async () => {
    const context = new OfflineAudioContext(1, 24000, 24000);
    await context.audioWorklet.addModule(new URL("static/worklet.js", location.href));
    const line = new AudioWorkletNode(context, "line", { outputChannelCount: [1] });
    const told = [];
    line.port.onmessage = ({ data }) => "played" in data && told.push(data);
    line.connect(context.destination);
    const during = async (seconds, act) => {
        await context.suspend(seconds);
        act();
        await new Promise((done) => setTimeout(done, 100));
        await context.resume();
    };
    during(0, () => line.port.postMessage(new Int16Array(24000).fill(16384)));
    during(0.256, () => line.port.postMessage({ clears: 1 }));
    during(0.512, () => line.port.postMessage(new Int16Array(2400).fill(16384)));
    const sound = (await context.startRendering()).getChannelData(0);
    const isOver = () => told.some((report) => report.clears === 1 && report.isDry);
    while (!isOver()) await new Promise((done) => setTimeout(done, 10));
    return [Array.from(sound, (value) => Math.round(value * 100)), told];
})()"""


def test_an_interruption_empties_what_is_to_be_played(browser: Browser, web: Web) -> None:
    with browser.page() as page:
        page.open(web.url)
        sound, told = page.run(WORKLET)

    at_ms = 24
    assert set(sound[: 256 * at_ms]) == {50}
    assert set(sound[262 * at_ms : 512 * at_ms]) == {0}
    assert set(sound[512 * at_ms : 612 * at_ms]) == {50}
    assert [report["clears"] for report in told] == sorted(report["clears"] for report in told)
    before, after = ([r["played"] for r in told if r["clears"] == n] for n in (0, 1))
    assert before[0] < 10
    assert 200 < before[-1] <= 256
    assert after[-1] == 100
    assert told[-1]["isDry"]


def test_without_the_key_the_page_says_where_it_is(browser: Browser, web: Web) -> None:
    with browser.page() as page:
        status = page.open(web.url[:-1])
        text = page.text()

    assert status == 403
    assert "ends in ?key=" in text


def test_who_denies_the_microphone_is_told_what_to_do(browser: Browser, web: Web) -> None:
    with browser.page() as page:
        page.deny("microphone", web.url)
        page.open(web.url)
        page.press("#start")
        page.until("!document.querySelector('#problem').hidden")
        text = page.run("document.querySelector('#problem').textContent")
        can_start = page.run("!document.querySelector('#start').disabled")

    assert text.startswith("The browser may not use the microphone: allow it for this page")
    assert can_start


def refusal(page: Page, url: str) -> str:
    """Return what the page says to who presses Start."""
    page.open(url)
    page.press("#start")
    page.until("!document.querySelector('#problem').hidden")
    return str(page.run("document.querySelector('#problem').textContent"))


@pytest.mark.long
def test_who_has_no_microphone_is_told_what_to_do(web: Web) -> None:
    browser = Browser(None)
    try:
        with browser.page() as page:
            text = refusal(page, web.url)
    finally:
        browser.close()

    assert text == "There is no microphone: plug one in, and press Start again."


@pytest.mark.long
def test_a_page_without_tls_on_another_machine_says_why_it_has_no_microphone(
    browser: Browser, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        outside.connect(("192.0.2.1", 9))  # sends nothing, but has the system choose an address
        address = outside.getsockname()[0]
    with Web(tmp_path, "--host", "0.0.0.0", "--insecure") as web, browser.page() as page:
        text = refusal(page, web.url.replace("127.0.0.1", address))

    assert text.startswith("The browser gives the microphone only to a page with https://")


def test_a_start_that_fails_says_what_failed_and_what_to_do(
    browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("import quantum_voice\nagent = None\n")
    with Web(tmp_path, "broken.py:agent") as web, browser.page() as page:
        page.open(web.url)
        page.press("#start")
        page.until("!document.querySelector('#problem').hidden")
        text = page.run("document.querySelector('#problem').textContent")
        phase = page.run("document.querySelector('#phase').textContent")

    assert phase == "Not started"
    assert "No module named 'quantum_voice'" in text


def test_without_a_key_it_is_the_sandbox_and_says_so(browser: Browser, tmp_path: Path) -> None:
    with Web(tmp_path) as web, browser.page() as page:
        page.open(web.url)
        note = page.run("document.querySelector('#notes').textContent")
        begin(page)
        page.until("[...document.querySelectorAll('.phrase')].map((e) => e.textContent).join()")
        phrases = page.run("[...document.querySelectorAll('.phrase')].map((e) => e.textContent)")
        page.run("[...document.querySelectorAll('.phrase')].at(11).click()")
        page.until(says("assistant", "My name is Sandbox."))
        leave(page)

    assert note.startswith("There is no key, so this is the sandbox")
    assert note in web.said
    assert phrases[11] == "what is your name"


AGENT = """
from rtvoice import Agent, Tools

tools = Tools()

@tools.action("Say what the weather is.")
def weather(city: str) -> str:
    return f"Sunny in {city}."

agent = Agent("Answer.", tools=tools, audio_input="default", audio_output="talk.wav")
"""


def test_an_agent_of_ones_own_talks_at_the_page_whatever_devices_it_has(
    browser: Browser, sandbox: SandboxServer, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(AGENT)
    with Web(tmp_path, "mine.py:agent", RTVOICE_SERVER=sandbox.url) as web, browser.page() as page:
        page.open(web.url)
        begin(page)
        type_in(page, 'call weather {"city": "Oslo"}')
        page.until("document.querySelector('li.tool.complete')")
        call = page.run("document.querySelector('li.tool').textContent")
        page.press('[aria-label="Kill supervisor"]')
        row = "document.querySelector('#processes tr[data-state=back]')"
        page.until(f"{row}?.innerText.startsWith('supervisor')", "it does not come back")
        type_in(page, "what is your name")
        page.until(says("assistant", "My name is Sandbox."))
        leave(page)

    assert re.fullmatch(
        r'weather \d\.\d\d sArguments\{"city": ?"Oslo"\}AnswerSunny in Oslo\.', call
    )
    assert not (tmp_path / "talk.wav").exists()


def test_a_program_that_ends_is_told_on_the_page(browser: Browser, tmp_path: Path) -> None:
    with Web(tmp_path) as web, browser.page() as page:
        page.open(web.url)
        begin(page)
        code = web.end()
        page.until("!document.querySelector('#problem').hidden")
        text = page.run("document.querySelector('#problem').textContent")

    assert code == 0
    assert text == "The service is ending."


def test_a_page_whose_program_is_gone_says_so_when_it_is_started(
    browser: Browser, tmp_path: Path
) -> None:
    with Web(tmp_path) as web, browser.page() as page:
        page.open(web.url)
        web.end()
        page.press("#start")
        page.until("!document.querySelector('#problem').hidden")

        text = page.run("document.querySelector('#problem').textContent")
        assert text == "The program at this address does not answer: is it still running?"


def test_the_older_of_two_tabs_is_told_that_the_other_goes_on(browser: Browser, web: Web) -> None:
    with conversation(browser, web) as newer, browser.page() as older:
        older.open(web.url)
        begin(older)
        tokens = older.run("JSON.stringify(sessionStorage)")
        newer.run(f"for (const [k, v] of Object.entries({tokens})) sessionStorage.setItem(k, v)")
        newer.reload()
        older.until("document.querySelector('#phase').textContent === 'Ended'")
        newer.until(SPEAK)

        hint = older.run("document.querySelector('#hint').textContent")
        assert hint == "The conversation goes on in another tab."


def test_notices_are_smaller_than_the_talk(browser: Browser, tmp_path: Path) -> None:
    with (
        Web(tmp_path, RTVOICE_SERVER="ws://127.0.0.1:9") as web,
        browser.page() as page,
    ):
        page.open(web.url)
        page.press("#start")
        page.until("document.querySelector('li.notice .text')", "no notice is shown")

        size = "parseFloat(getComputedStyle(document.querySelector('li.notice .text')).fontSize)"
        assert page.run(size) < 16


def test_an_image_that_cannot_be_sent_is_told_and_its_text_kept(browser: Browser, web: Web) -> None:
    with Wire(web.port) as wire, browser.page() as page:
        page.open(web.url.replace(str(web.port), str(wire.port), 1))
        begin(page)
        page.run("document.querySelector('#text').value = 'what is this'")
        wire.cut()
        page.until("document.querySelector('#phase').textContent === 'Reconnecting'")
        page.run(DROP)
        page.until("!document.querySelector('#toast').hidden")
        told = page.run("document.querySelector('#toast').textContent")
        kept = page.run("document.querySelector('#text').value")
        wire.mend()
        page.until(SPEAK)
        leave(page)

    assert told == "There is no connection; the image was not sent."
    assert kept == "what is this"


@contextlib.contextmanager
def public_page(sandbox: SandboxServer) -> Iterator[str]:
    """Serve a page for strangers, mounted into another application; give its address."""

    def make_agent(call: CallInfo) -> Agent:
        return Agent("You sell bicycles.", server=sandbox.url, inactivity_timeout_s=None)

    service = Service(make_agent, cpu_limit=None, lag_limit_ms=None, view="talk")
    page = rtvoice.web.Page(service)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        root = {} if scope["type"] == "lifespan" else {"root_path": "/voice"}
        await page({**scope, **root}, receive, send)

    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://{address_of(listener)}/voice"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def test_a_stranger_at_a_mounted_page_talks_and_sees_nothing_of_the_inside(
    browser: Browser, sandbox: SandboxServer
) -> None:
    with public_page(sandbox) as url, browser.page() as page:
        page.open(url)
        begin(page)
        type_in(page, "what time is it")
        page.until(f"document.querySelector('li.assistant') && {SPEAK}")
        text = page.text()
        inside = page.run("document.querySelector('#inside').checkVisibility()")
        entries = page.run("[...document.querySelectorAll('#entries li')].map((e) => e.className)")
        leave(page)

    assert not inside
    assert "Kill" not in text
    assert "get_current_time" not in text
    assert [name.split()[0] for name in entries] == ["user", "assistant"]


# -- who cannot see it, and who has little room ---------------------------------------------------

ROLES = ["banner", "main", "complementary", "status", "alert"]
NAMED = {"button", "textbox", "searchbox", "combobox", "slider", "meter", "link", "table", "region"}
CONTRAST = """(() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgb = (text) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = text;
        canvas.fillRect(0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const light = (text) => {
        const [r, g, b] = [...rgb(text)].slice(0, 3).map((value) => {
            const part = value / 255;
            return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (rgb(colour)[3] === 255) return colour;
        }
        return "white";
    };
    const faint = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const element = walk.currentNode.parentElement;
        if (!walk.currentNode.data.trim() || !element.checkVisibility()) continue;
        if (element.closest(":disabled, .unseen, option, noscript, .skip")) continue;
        const pair = [light(getComputedStyle(element).color), light(behind(element))];
        const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        if (ratio < 4.5) faint.push(`${walk.currentNode.data.trim().slice(0, 30)}: ${ratio}`);
    }
    return faint;
})()"""


def accessible(page: Page) -> list[dict[str, str]]:
    """Return role and name of each node that assistive technology sees."""
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    return [
        {"role": node["role"]["value"], "name": node.get("name", {}).get("value", "")}
        for node in nodes
        if not node.get("ignored") and "role" in node
    ]


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_everybody_can_use_the_page(browser: Browser, web: Web, scheme: str) -> None:
    with browser.page(360, 740, prefers_color_scheme=scheme) as page:
        page.open(web.url)
        before = accessible(page)
        begin(page)
        type_in(page, "tell me a story")
        page.until("document.querySelector('li.assistant .unheard')")
        page.key("Escape")
        page.until("document.querySelector('li.assistant s')")
        page.run("document.querySelector('#events-panel').open = true")
        page.until("document.querySelector('#events li')")
        during = accessible(page)
        faint = page.run(CONTRAST)
        width = page.run("document.documentElement.scrollWidth")
        told = page.run("document.querySelector('#told').textContent")
        leave(page)

    nameless = [node for node in (*before, *during) if node["role"] in NAMED and not node["name"]]
    assert nameless == []
    roles = {node["role"] for node in during}
    assert {"banner", "main", "complementary", "status", "list"} <= roles
    assert faint == []
    assert width == 360
    assert told.startswith("Assistant: Once upon a time")


def test_the_keyboard_alone_starts_types_and_leaves(browser: Browser, web: Web) -> None:
    with browser.page() as page:
        page.open(web.url)
        reach(page, "start")
        page.key("Enter")
        page.until(SPEAK)
        reach(page, "text")
        page.type("what is your name")
        page.key("Enter")
        page.until(says("assistant", "My name is Sandbox."))
        reach(page, "leave")
        outline = page.run("getComputedStyle(document.activeElement).outlineStyle")
        page.key("Enter")
        page.until("document.querySelector('#phase').textContent === 'Ended'")

    assert outline == "solid"


def reach(page: Page, name: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(60):
        page.key("Tab")
        if page.run("document.activeElement.id") == name:
            return
    raise AssertionError(f"Tab does not reach {name}")


# -- push-to-talk --------------------------------------------------------------------------------


def test_space_is_held_to_talk(browser: Browser, sandbox: SandboxServer, tmp_path: Path) -> None:
    sandbox.hear("thank you")
    with (
        Web(tmp_path, "--push-to-talk", RTVOICE_SERVER=sandbox.url) as web,
        browser.page() as page,
    ):
        page.open(web.url)
        page.press("#start")
        page.until("!document.querySelector('#hold').hidden")
        page.until("document.querySelector('#phase').textContent === 'Listening'")
        page.run("document.querySelector('#talk').focus()")
        page.key(" ", "keyDown")
        page.until("document.querySelector('#phase').textContent === 'Hearing you'")
        before = page.run("performance.now()")
        page.until(f"performance.now() > {before} + 300")
        page.key(" ", "keyUp")
        page.until(says("user", "thank you"))
        leave(page)


# -- the command -----------------------------------------------------------------------------------


def failing(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "--web", *arguments],
        cwd=folder,
        env=environment_of(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_port_in_use_is_a_sentence(web: Web, tmp_path: Path) -> None:
    code, said = failing(tmp_path, "--port", str(web.port), "--server", "sandbox")

    assert code == 2
    assert f"127.0.0.1:{web.port} cannot be used (Address already in use)" in said
