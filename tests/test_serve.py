"""``rtvoice serve`` as an operator runs it: real processes, sockets and signals."""

from __future__ import annotations

import inspect
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from rtvoice.service import Service
from rtvoice.testing import SandboxServer
from tests.listening import SHOP, Listening, exit_code, sandbox, shop
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S, wait_until_gone
from tests.rtvoice.service.stage import Caller, fetched, until, whole_journals
from tests.test_command import environment_of

__all__ = ["sandbox", "shop"]

JSON_LOG = ("--log", "json")


class Served(Listening):
    """``rtvoice serve``, from when it listens."""

    def __init__(self, shop: Path, sandbox: SandboxServer, *options: str) -> None:
        limits = ("--port", "0", "--cpu-limit", "none", "--lag-limit-ms", "none")
        environment = environment_of(RTVOICE_SERVER=sandbox.url)
        super().__init__(shop, ["serve", "shop.py:make_agent", *limits, *options], environment)

    def caller(self, path: str = "/talk") -> Any:
        return connect(f"ws://127.0.0.1:{self.port}{path}", compression=None)

    def get(self, path: str) -> tuple[int, str]:
        return fetched(self.port, path)


@in_a_loop
async def test_a_signal_drains_and_a_second_one_ends_at_once(
    shop: Path, sandbox: SandboxServer
) -> None:
    with Served(shop, sandbox) as served:
        async with served.caller() as one, served.caller() as two:
            callers = [Caller(one), Caller(two)]
            for caller in callers:
                await caller.hello()
                await caller.expect("started")
            served.process.send_signal(signal.SIGTERM)
            await until(lambda: served.get("/readyz")[0] == 503, "it does not drain")
            health = served.get("/healthz")[0]
            with pytest.raises(InvalidStatus, match="503") as refused:
                await served.caller()
            await one.close()
            await until(lambda: len(json.loads(served.get("/sessions")[1])["sessions"]) == 1, "")
            assert served.process.poll() is None
            served.process.send_signal(signal.SIGTERM)
            end = await callers[1].closed()
        code, said = served.end()

    assert health == 200
    assert refused.value.response.headers["Retry-After"] == "5"
    assert end == (1001, "the service is ending")
    assert code == 0
    assert "Traceback" not in said
    assert "WARNING" not in said
    assert "ERROR" not in said


@in_a_loop
async def test_after_the_last_call_a_drained_service_ends_by_itself(
    shop: Path, sandbox: SandboxServer
) -> None:
    with Served(shop, sandbox, *JSON_LOG) as served:
        async with served.caller() as socket:
            caller = Caller(socket)
            hello = await caller.hello()
            await caller.expect("started")
            served.process.send_signal(signal.SIGTERM)
            await until(lambda: served.get("/readyz")[0] == 503, "it does not drain")
        code, said = served.end()

    records = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    of_processes = [r for r in records if r["logger"] == "rtvoice.speaker"]
    assert code == 0
    assert of_processes, said
    assert all(record["session"] == hello["session"] for record in of_processes)
    (customer,) = (record for record in records if record["logger"] == "shop")
    assert (customer["text"], customer["session"]) == ("a customer", hello["session"])
    assert all({"time", "level", "text"} <= set(record) for record in records)
    assert said.count("\n") == len(records) + 1  # and where it listens


@in_a_loop
async def test_a_killed_service_leaves_no_process_and_goes_on_when_it_is_back(
    shop: Path, sandbox: SandboxServer
) -> None:
    journals = ("--journals", "journals")
    with Served(shop, sandbox, *journals) as served:
        async with served.caller() as socket:
            caller = Caller(socket)
            hello = await caller.hello()
            await caller.expect("started")
            pids = descendants(served.process.pid)
            served.process.kill()
            await caller.closed()
        served.end()
        wait_until_gone(pids, TIMEOUT_S / 10)
    with Served(shop, sandbox, *journals) as served:
        async with served.caller() as socket:
            again = Caller(socket)
            back = await again.hello(token=hello["token"])
            await again.expect("started")
        served.process.send_signal(signal.SIGINT)
        code, _ = served.end()

    assert len(pids) > 6
    assert (back["session"], back["resumed"]) == (hello["session"], True)
    assert code == 0


@in_a_loop
async def test_a_killed_service_leaves_every_journal_whole(
    shop: Path, sandbox: SandboxServer
) -> None:
    greeting = 'greeting="Hello. What can I do for you?", '
    (shop / "shop.py").write_text(
        SHOP.replace("Agent(transcription", f"Agent({greeting}transcription")
    )
    with Served(shop, sandbox, "--journals", "journals") as served:
        async with served.caller() as one, served.caller() as two, served.caller() as three:
            done, speaking, starting = Caller(one), Caller(two), Caller(three)
            await done.hello()
            await done.expect("turn", role="assistant")
            await speaking.hello()
            await speaking.hears()
            await starting.hello()
            pids = descendants(served.process.pid)
            served.process.kill()
            for caller in (done, speaking, starting):
                await caller.closed()
        served.end()
    wait_until_gone(pids, TIMEOUT_S / 10)

    journals = whole_journals(shop / "journals")
    assert len(journals) >= 2
    assert any(records[1:] for records in journals)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(path.parent.name))
    found, ours = [], [pid]
    while ours:
        children = parents.get(ours.pop(), [])
        found += children
        ours += children
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "the following arguments are required: MAKE_AGENT"),
        (("nothing.py:make_agent",), "nothing.py"),
        (("shop.py:make_agents",), "shop.py has no 'make_agents'"),
        (("shop.py:number",), "it is no function but of type int"),
        (("shop.py:agent",), "write def make_agent(call): return Agent(...)"),
        (
            ("shop.py:make_agent", "--queue", "-1"),
            "rtvoice: --queue: -1 is out of range; give a whole number of at least 0",
        ),
        (
            ("shop.py:make_agent", "--max-sessions", "0"),
            "--max-sessions: 0 is out of range; give a whole number of at least 1 or None",
        ),
        (
            ("shop.py:make_agent", "--cpu-limit", "0"),
            "--cpu-limit: 0 is out of range; give a number above 0 or None",
        ),
        (("shop.py:make_agent", "--drain-s", "nan"), "give a number of at least 0"),
        (("shop.py:make_agent", "--keep-s", "soon"), "'soon' is not valid; give a number of at"),
        (
            ("shop.py:make_agent", "--port", "70000"),
            "--port: 70000 is out of range; give a whole number from 0 to 65535",
        ),
        (("shop.py:make_agent", "--host", "192.0.2.1"), "192.0.2.1:8080 cannot be used"),
        (
            ("shop.py:make_agent", "--log-level", "LOUD"),
            "rtvoice: --log-level: 'LOUD' is not valid; give DEBUG, INFO",
        ),
        (
            ("shop.py:make_agent", "--journals", "shop.py"),
            "journals: shop.py cannot be written: a part of the path is a file, not a folder",
        ),
    ],
)
def test_wrong_usage_is_refused_with_what_to_do(
    arguments: tuple[str, ...],
    words: str,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = exit_code(["serve", *arguments], shop, monkeypatch)

    assert code == 2
    assert words in capsys.readouterr().err


def test_a_wrong_log_level_of_the_environment_is_told(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rtvoice.command.cli import run

    monkeypatch.chdir(shop)
    monkeypatch.setenv("RTVOICE_LOG_LEVEL", "LOUD")

    assert run(["serve", "shop.py:make_agent"]) == 2
    assert "RTVOICE_LOG_LEVEL: 'LOUD' is not valid; give DEBUG" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_sessions", 3),
        ("cpu_limit", 0.5),
        ("memory_limit_mib", 900),
        ("lag_limit_ms", None),
        ("tokens_per_minute", 1000),
        ("start_parallel", 4),
        ("queue", 2),
        ("queue_s", 1.5),
        ("drain_s", 0.0),
        ("keep_s", 7.0),
        ("origins", ["https://shop.example"]),
    ],
)
def test_each_option_reaches_the_service(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtvoice.command import serve

    given: dict[str, Any] = {}
    monkeypatch.setattr("rtvoice.service.Service", lambda _, **options: given.update(options))
    monkeypatch.setattr(serve, "load", lambda *_: print)
    flag = "--origin" if name == "origins" else f"--{name.replace('_', '-')}"
    text = value[0] if isinstance(value, list) else str(value)

    for arguments in ([], [flag, text]):
        serve._service(serve._parser().parse_args(["shop.py:make_agent", *arguments]))

    parameters = inspect.signature(Service.__init__).parameters
    defaults = {key: each.default for key, each in parameters.items() if key in given}
    assert given | {"origins": tuple(given["origins"])} == defaults | {
        name: tuple(value) if isinstance(value, list) else value
    }


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    from rtvoice.command.cli import run

    with pytest.raises(SystemExit):
        run(["serve", "--help"])

    shown = capsys.readouterr().out
    for word in ("def make_agent(call", "/talk", "/readyz", "SIGTERM", "exit codes:", "examples:"):
        assert word in shown
    assert all(len(line) <= 100 for line in shown.splitlines())
