"""The program: how it starts, what it prints, how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rtvoice.sandbox.launch import SandboxError, child_environment, start_sandbox
from rtvoice.sandbox.phrases import printed_list
from tests.rig import until
from tests.sandbox.client import TIMEOUT_S, Client

COMMAND = [sys.executable, "-P", "-m", "rtvoice.sandbox"]
on_posix = pytest.mark.skipif(os.name != "posix", reason="there are no such signals there")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(autouse=True)
def without_recogniser(monkeypatch):
    """Loading its model would take more time than all of these tests."""
    monkeypatch.setenv("RTVOICE_SANDBOX_LISTEN", "none")


@contextmanager
def running(*options, **more):
    process = subprocess.Popen(
        [*COMMAND, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment() | more,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_until(process, wanted):
    lines = [process.stdout.readline()]
    while lines[-1] and wanted not in lines[-1]:
        lines.append(process.stdout.readline())
    return lines


def gone(pid):
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return True


def children_of(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                found.append(int(stat.parent.name))
    return found


def test_the_first_line_says_where_and_the_rest_what():
    with running() as process:
        first = process.stdout.readline()
        rest = lines_until(process, "voice:")

    assert re.fullmatch(r"listening on ws://127\.0\.0\.1:\d+/v1/realtime\n", first)
    assert all(f"  {line}\n" in rest for line in printed_list())
    assert any(line.startswith("recogniser: ") for line in rest)


def test_it_listens_quickly():
    taken = []
    for _ in range(3):
        began = time.monotonic()
        with start_sandbox():
            taken.append(time.monotonic() - began)

    assert min(taken) < 2.0  # 50 ms on an idle machine


def test_a_client_that_connects_at_once_is_served():
    with running() as process:
        url = process.stdout.readline().split()[-1]
        with Client(url) as client:
            assert client.receive()["type"] == "session.created"


def test_help_teaches():
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True,
                           env=child_environment()).stdout  # fmt: skip

    for word in ("--port", "--until-eof", "RTVOICE_SANDBOX_LISTEN", "call NAME", "no key"):
        assert word in shown.replace("No key", "no key")


def test_a_port_in_use_is_said_and_ends_with_2():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ended = subprocess.run(
            [*COMMAND, f"--port={port}"], capture_output=True, text=True, check=False,
            env=child_environment(), timeout=TIMEOUT_S,
        )  # fmt: skip

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert f"Port {port} is in use" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("option", ["--port=70000", "--port=x", "--pace=-1", "--nonsense"])
def test_a_wrong_option_ends_with_2(option):
    ended = subprocess.run(
        [*COMMAND, option], capture_output=True, text=True, check=False, env=child_environment()
    )

    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@on_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["at once", "with a session"])
def test_a_signal_ends_it_cleanly(number, when):
    with running() as process:
        url = process.stdout.readline().split()[-1]
        if when == "at once":
            process.send_signal(number)
            code = process.wait(TIMEOUT_S)
        else:
            with Client(url) as client:
                client.receive()
                lines_until(process, "voice:")
                process.send_signal(number)
                code = process.wait(TIMEOUT_S)
        errors = process.stderr.read()

    assert code == 0
    assert errors == ""


def test_the_end_of_stdin_ends_it():
    with running("--until-eof") as process:
        process.stdout.readline()

        process.stdin.close()

        assert process.wait(TIMEOUT_S) == 0
        process.stdin = None


@on_linux
@pytest.mark.usefixtures("recogniser_installed")
def test_it_leaves_no_process_behind(monkeypatch):
    monkeypatch.delenv("RTVOICE_SANDBOX_LISTEN")
    with running("--until-eof") as process:
        lines_until(process, "voice:")
        until(lambda: children_of(process.pid), "it starts nothing")
        family = children_of(process.pid)

        process.kill()

        until(lambda: all(gone(pid) for pid in family), "something lives on")


@on_linux
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_it_ends_with_the_program_that_started_it(state):
    program = (
        "import sys, time\n"
        "from rtvoice.sandbox.launch import start_sandbox\n"
        "print(start_sandbox().pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=child_environment()
    )
    with parent:
        pid = int(parent.stdout.readline())
        if state == "stopped":
            os.kill(pid, signal.SIGSTOP)

        parent.kill()

        until(lambda: gone(pid), "it lives on")


def test_the_printed_output_need_not_be_read():
    with running() as process:
        url = process.stdout.readline().split()[-1]
        process.stdout.close()
        with Client(url) as client:
            assert client.receive()["type"] == "session.created"
        process.stdout = None


def test_without_its_options_it_says_what_to_install():
    with running(PATH="", RTVOICE_SANDBOX_LISTEN="none") as process:
        said = "".join(lines_until(process, "voice:"))

    assert "recogniser: none (RTVOICE_SANDBOX_LISTEN=none)" in said
    assert "apt-get install espeak-ng" in said


# From a program.


def test_a_program_starts_it_and_ends_it():
    with start_sandbox() as sandbox:
        alive = sandbox.is_alive()
        with Client(sandbox.url) as client:
            first = client.receive()["type"]

    sandbox.close()
    assert (alive, first) == (True, "session.created")
    assert not sandbox.is_alive()


@on_linux
def test_it_outlives_the_thread_that_asked_for_it():
    import threading

    started = []
    asking = threading.Thread(target=lambda: started.append(start_sandbox()))
    asking.start()
    asking.join()

    with started[0] as sandbox, Client(sandbox.url) as client:
        assert client.receive()["type"] == "session.created"


def test_a_sandbox_that_can_not_start_says_why():
    with start_sandbox() as first:
        port = int(re.search(r":(\d+)/", first.url).group(1))

        with pytest.raises(SandboxError, match=f"Port {port} is in use"):
            start_sandbox(port=port)


def test_no_key_reaches_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")

    assert "sk-canary" not in child_environment().values()


# Keys, and who may connect.

KEY = "sk-canary-0123456789"


def test_any_key_is_taken_and_none_is_shown():
    with running("--until-eof") as process:
        url = process.stdout.readline().split()[-1]
        header = {"Authorization": f"Bearer {KEY}"}
        with Client(url, additional_headers=header) as client:
            client.expect("session.created")
            client.socket.send("nonsense")
            client.socket.send("nonsense")
            client.send("session.update", session={"type": "realtime"})
            client.expect("session.updated")
            shown = str(client.received)
        with Client(url, additional_headers={"api-key": KEY}) as client:
            client.expect("session.created")
            client.send("sandbox.misbehave", fault="garbage frame")
            with contextlib.suppress(ConnectionClosed):  # the garbage may have come already
                client.send("response.create")
        offered = ["realtime", f"openai-insecure-api-key.{KEY}"]
        with Client(url, subprotocols=offered) as browser:
            browser.expect("session.created")
            browser.socket.socket.shutdown(socket.SHUT_RDWR)
        with Client(url, additional_headers={**header, "OpenAI-Beta": "realtime=v1"}) as beta:
            shown += str(beta.receive())
        for wrong in ("?misbehave=refuse+401", "?misbehave=x", "/elsewhere"):
            with pytest.raises(InvalidStatus) as refused:
                Client(url + wrong, additional_headers=header).__enter__()
            shown += str(refused.value.response)
        process.stdin.close()
        process.stdin = None
        process.wait(TIMEOUT_S)
        shown += process.stdout.read() + process.stderr.read()

    assert "recogniser:" in shown
    assert KEY not in shown


def address_of_this_machine():
    """An address of its network, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            any_socket.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return any_socket.getsockname()[0]


def test_only_this_machine_can_connect_unless_told_otherwise():
    address = address_of_this_machine()
    if address is None or address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    for options, reachable in ((), False), (("--host=0.0.0.0",), True):
        with running(*options) as process:
            lines = lines_until(process, "voice:")
            port = int(re.search(r":(\d+)/", lines[0]).group(1))
            with socket.socket() as other:
                other.settimeout(TIMEOUT_S)
                refused = other.connect_ex((address, port))
            warned = process.stdout.readline() if reachable else ""

        assert (refused == 0) == reachable
        assert ("can be reached by others" in warned) == reachable
