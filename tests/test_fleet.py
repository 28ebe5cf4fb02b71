"""``rtvoice fleet`` as an operator runs it: real processes, sockets and signals."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rtvoice.fleet.opening import open_store
from rtvoice.fleet.store import HostRow
from rtvoice.testing import SandboxServer
from tests.listening import Listening, command, exit_code, sandbox, shop
from tests.loop import in_a_loop
from tests.orphans import end, started_by
from tests.rig import TIMEOUT_S
from tests.rtvoice.fleet.rig import MARK, Called, until
from tests.test_command import environment_of

__all__ = ["sandbox", "shop"]

STORE = ("--store", "sqlite:///fleet.db")


def ran(
    folder: Path, environment: Mapping[str, str], *words: str
) -> subprocess.CompletedProcess[str]:
    """Run ``rtvoice fleet`` to its end."""
    return subprocess.run(
        command("fleet", *words),
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Running(Listening, Called):
    """``rtvoice fleet``, from when it listens; in the end nothing of it is left."""

    def __init__(self, shop: Path, sandbox: SandboxServer, *options: str) -> None:
        self.mark = f"{os.getpid()}-{id(self)}"
        self.folder = shop
        self.environment = environment_of(RTVOICE_SERVER=sandbox.url, **{MARK: self.mark})
        agent = ("--agent", "shop.py:make_agent", "--cpu-limit", "none", "--ttl", "2")
        arguments = ["fleet", *STORE, *agent, "--port", "0", *options]
        super().__init__(shop, arguments, self.environment)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        end(MARK, self.mark)
        super().__exit__()

    async def ask(
        self, method: str, path: str, body: bytes = b"", token: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Ask the gateway."""
        return await asyncio.to_thread(self._ask, method, path, body, token)

    async def order(self, *words: str) -> tuple[int, str]:
        """Run a further command; return its exit code, and what it has said."""
        done = await asyncio.to_thread(
            ran, self.folder, self.environment, words[0], *STORE, *words[1:]
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
        (("status", "--store", "sqlite:///feet.db"), "feet.db: there is no such store; the first"),
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
    known_store(shop)

    code = exit_code(["fleet", *arguments], shop, monkeypatch)

    assert code == 2
    assert words in capsys.readouterr().err


def known_store(folder: Path) -> None:
    """Make a store with a host that does not answer, and two conversations."""
    store = open_store(f"sqlite:///{folder / 'fleet.db'}")
    fields = {"sessions": 1, "room": 1, "draining": False, "age_s": 0.0}
    store.report(HostRow(name="host-1", url="http://127.0.0.1:1", owner="A", **fields))
    store.create("over", b"{}", "hash")
    store.end("over", 0, "hung_up")
    store.create("waits", b"{}", "hash")
    store.close()


@pytest.mark.parametrize("ttl_s", [1, 61])
def test_a_host_alone_refuses_a_lease_that_is_out_of_range(shop: Path, ttl_s: int) -> None:
    options = {"name": "a", "store": STORE[1], "agent": "shop.py:make_agent", "ttl_s": ttl_s}
    done = subprocess.run(
        [sys.executable, "-m", "rtvoice.fleet.process", json.dumps(options)],
        cwd=shop,
        env=environment_of(**{MARK: "no start"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    said = f"rtvoice: ttl_s: {ttl_s} is out of range; give a number from 2 to 60\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_host_that_cannot_start_is_told(shop: Path, sandbox: SandboxServer) -> None:
    with socket_in_use() as port:
        environment = environment_of(RTVOICE_SERVER=sandbox.url, **{MARK: "no start"})
        agent = ("--agent", "shop.py:make_agent", "--port", "0", "--host-port", port)
        done = ran(shop, environment, *STORE, *agent)

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
