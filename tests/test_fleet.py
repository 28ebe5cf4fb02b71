"""``rtvoice fleet`` as an operator runs it: real processes, sockets and signals."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtvoice.fleet.store import HostRow, open_store
from rtvoice.testing import SandboxServer
from tests.loop import in_a_loop
from tests.orphans import end, started_by
from tests.rig import TIMEOUT_S
from tests.rtvoice.fleet.rig import MARK, Caller, until
from tests.test_command import environment_of
from tests.test_serve import SHOP

STORE = ("--store", "sqlite:///fleet.db")


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(pace=4, timeout_s=2 * TIMEOUT_S) as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "supervisor", "fleet", *words]


class Running:
    """The command, until it listens; in the end nothing of it is left."""

    def __init__(self, shop: Path, sandbox: SandboxServer, *options: str) -> None:
        self.mark = f"{os.getpid()}-{id(self)}"
        self.folder = shop
        self.environment = environment_of(RTVOICE_SERVER=sandbox.url, **{MARK: self.mark})
        agent = ("--agent", "shop.py:make_agent", "--cpu-limit", "none", "--ttl", "2")
        self.process = subprocess.Popen(
            command(*STORE, *agent, "--port", "0", *options),
            cwd=shop,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.port = 0
        self._listens = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._listens.wait(3 * TIMEOUT_S)
        assert self.port, self.said

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        end(MARK, self.mark)
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    @property
    def said(self) -> str:
        return "".join(self.lines)

    async def ask(
        self, method: str, path: str, body: bytes = b"", token: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Ask the gateway."""
        return await asyncio.to_thread(self._ask, method, path, body, token)

    async def call(self) -> Caller:
        """Begin a conversation, and call its host."""
        status, found = await self.ask("POST", "/sessions", b"{}")
        assert status == 201, found
        caller = Caller(self, found["id"], found["token"])
        caller.start()
        await until(lambda: caller.connected, "the caller is not connected")
        return caller

    async def order(self, *words: str) -> tuple[int, str]:
        """Run a further command; return its exit code, and what it has said."""
        done = await asyncio.to_thread(
            subprocess.run,
            command(words[0], *STORE, *words[1:]),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    async def ended(self) -> int:
        """Wait for its end; return the exit code."""
        return await asyncio.to_thread(self.process.wait, 3 * TIMEOUT_S)

    def _ask(self, method: str, path: str, body: bytes, token: str) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=body or None,
            headers={"authorization": f"Bearer {token}"} if token else {},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())
        except urllib.error.URLError:
            return 0, {}  # nobody listens there any more

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"serving shop.py:make_agent at http://127.0.0.1:(\d+)", line):
                self.port = int(found[1])
                self._listens.set()
        self._listens.set()


@in_a_loop
async def test_a_caller_goes_through_an_upgrade_of_all_hosts(
    shop: Path, sandbox: SandboxServer
) -> None:
    """Host by host: each moves what it has at a pause, ends, and is started again."""
    with Running(shop, sandbox) as fleet:
        caller = await fleet.call()
        before = json.loads((await fleet.order("status", "--json"))[1])

        code, said = await fleet.order("drain", "--all")

        after = json.loads((await fleet.order("status", "--json"))[1])
        await until(lambda: caller.connected > len(caller.codes), "the caller is cut off")
        assert code == 0, said
        for name in ("host-1", "host-2"):
            assert f"{name} is empty and has ended\n{name} is back\n" in said
        owners = [{each["owner"] for each in found["hosts"]} for found in (before, after)]
        assert not owners[0] & owners[1]
        (session,) = after["sessions"]
        assert (session["id"], session["state"]) == (caller.session_id, "held")
        assert session["epoch"] == 1 + len(caller.codes)
        assert set(caller.codes) == {1012}
        await caller.hang_up()


@in_a_loop
async def test_an_operator_sees_moves_and_ends_a_conversation(
    shop: Path, sandbox: SandboxServer
) -> None:
    with Running(shop, sandbox) as fleet:
        caller = await fleet.call()
        sees = await fleet.order("status", "--sessions")
        moves = await fleet.order("move", caller.session_id)
        await until(lambda: caller.connected == 2, "the caller does not come again")
        stops = await fleet.order("stop", caller.session_id)
        again = await fleet.order("stop", caller.session_id)
        gone = await fleet.ask("GET", f"/sessions/{caller.session_id}", token=caller.token)
        await caller.hang_up()

    assert sees[0] == 0
    assert re.search(r"host-1 +http://127.0.0.1:\d+ +\d +running +\d\.\d s ago\n", sees[1])
    assert re.search(rf"{caller.session_id}  host-\d  1 +held\n", sees[1])
    assert "1 conversations are held, 0 are between two hosts" in sees[1]
    assert "\x1b" not in sees[1]
    assert moves[0] == 0
    assert re.fullmatch(rf"conversation {caller.session_id} goes on at host-\d\n", moves[1])
    assert stops == (0, f"conversation {caller.session_id} has ended\n")
    assert again == (2, f"rtvoice: conversation {caller.session_id} has ended: stopped\n")
    assert gone == (410, {"error": "it has ended", "reason": "stopped"})


@in_a_loop
async def test_a_signal_drains_the_fleet_and_a_second_one_ends_it(
    shop: Path, sandbox: SandboxServer
) -> None:
    with Running(shop, sandbox) as fleet:
        caller = await fleet.call()

        fleet.process.send_signal(signal.SIGTERM)
        await until(lambda: "draining: 1 conversations" in fleet.said, "it does not drain")
        begun = await fleet.ask("POST", "/sessions", b"{}")
        ready = await fleet.ask("GET", "/readyz")
        assert caller.codes == []
        fleet.process.send_signal(signal.SIGTERM)
        code = await fleet.ended()

        assert begun == (503, {"error": "the fleet is ending"})
        assert ready == (503, {"ready": False})
        assert code == 0
        assert caller.codes[0] == 1001
        assert not started_by(MARK, fleet.mark)
        assert "Traceback" not in fleet.said
        await caller.hang_up()


@in_a_loop
async def test_hosts_outlive_the_command_and_are_found_again(
    shop: Path, sandbox: SandboxServer
) -> None:
    with Running(shop, sandbox) as first:
        before = json.loads((await first.order("status", "--json"))[1])
        first.process.kill()
        await first.ended()
        with Running(shop, sandbox) as second:
            after = json.loads((await second.order("status", "--json"))[1])

    owners = [[each["owner"] for each in found["hosts"]] for found in (before, after)]
    assert owners[0] == owners[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "the following arguments are required: --store"),
        (STORE, "rtvoice: --agent is missing: file.py:name or module:name"),
        ((*STORE, "--agent", "nothing.py:make_agent"), "nothing.py"),
        ((*STORE, "--agent", "shop.py:number"), "it is no function but of type int"),
        (
            ("--store", "mysql://x", "--agent", "shop.py:make_agent"),
            "rtvoice: 'mysql://x' is no store: give sqlite:///PATH (one machine), or postgresql://",
        ),
        (
            ("--store", "sqlite:///shop.py", "--agent", "shop.py:make_agent"),
            "shop.py: file is not a database",
        ),
        (
            (*STORE, "--agent", "shop.py:make_agent", "--ttl", "1"),
            "rtvoice: --ttl: 1 is out of range; give a number from 2 to 60",
        ),
        (
            (*STORE, "--agent", "shop.py:make_agent", "--hosts", "0"),
            "--hosts: 0 is out of range; give a whole number from 1 to 1000",
        ),
        ((*STORE, "--agent", "shop.py:make_agent", "--keep-s", "soon"), "--keep-s: 'soon' is not"),
        ((*STORE, "--agent", "shop.py:make_agent", "--port", "x"), "--port: 'x' is not valid"),
        (
            (*STORE, "--agent", "shop.py:make_agent", "--host-port", "-1"),
            "--host-port: -1 is out of range",
        ),
        (
            (*STORE, "--agent", "shop.py:make_agent", "--host", "0.0.0.0"),
            "--host 0.0.0.0 is every address: give --host-url, by which callers reach a host",
        ),
        (
            (*STORE, "--agent", "shop.py:make_agent", "--host", "192.0.2.1"),
            "192.0.2.1:8080 cannot be used",
        ),
        (("status",), "the following arguments are required: --store"),
        (("status", "--store", ""), "'' is no store"),
        (("drain", *STORE), "name hosts, or give --all for each after the other"),
        (("drain", *STORE, "host-9"), "there is no host host-9; there are: host-1"),
        (("drain", *STORE, "host-1"), "host host-1 does not answer: "),
        (("move", *STORE, "nobody"), "there is no conversation nobody"),
        (("move", *STORE, "waits"), "conversation waits is between two hosts; try again"),
        (("stop", *STORE), "the following arguments are required: ID"),
        (("stop", *STORE, "over"), "conversation over has ended: hung_up"),
    ],
)
def test_wrong_usage_is_refused_with_what_to_do(
    arguments: tuple[str, ...],
    words: str,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from rtvoice.command.cli import run

    monkeypatch.chdir(shop)
    monkeypatch.setattr("rtvoice.command.fleet.set_up_logging", lambda *_: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    known_store()
    try:
        code = run(["fleet", *arguments])
    except SystemExit as end:  # argparse
        code = int(str(end.code))

    assert code == 2
    assert words in capsys.readouterr().err


def known_store() -> None:
    """Make a store with a host that does not answer, and two conversations."""
    store = open_store("sqlite:///fleet.db")
    fields = {"sessions": 1, "room": 1, "draining": False, "age_s": 0.0}
    store.report(HostRow(name="host-1", url="http://127.0.0.1:1", owner="A", **fields))
    store.create("over", b"{}", "hash")
    store.end("over", 0, "hung_up")
    store.create("waits", b"{}", "hash")
    store.close()


def test_a_host_that_cannot_start_is_told(shop: Path, sandbox: SandboxServer) -> None:
    with socket_in_use() as port:
        done = subprocess.run(
            command(*STORE, "--agent", "shop.py:make_agent", "--port", "0", "--host-port", port),
            cwd=shop,
            env=environment_of(RTVOICE_SERVER=sandbox.url, **{MARK: "no start"}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 2
    assert "rtvoice: a host cannot start; it has said why\n" in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr
    end(MARK, "no start")


def socket_in_use() -> Any:
    import contextlib
    import socket

    @contextlib.contextmanager
    def used() -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield str(listener.getsockname()[1])

    return used()


@pytest.mark.parametrize("words", [(), ("status",), ("drain",), ("move",), ("stop",)])
def test_help_teaches(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    from rtvoice.command.cli import run

    with pytest.raises(SystemExit) as ended:
        run(["fleet", *words, "--help"])

    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--store URL" in shown
    assert all(len(line) <= 100 for line in shown.splitlines())
    if not words:
        for word in ("POST /sessions", "SIGTERM", "exit codes:", "examples:", "postgresql://"):
            assert word in shown
