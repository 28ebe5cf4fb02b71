"""A forked process is what an interpreter of its own would be; without fork it is one."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from messages.transport import forking
from messages.transport.fork_protocol import Answer, Stage
from messages.transport.forked import EXIT_UNKNOWN, Forked
from messages.transport.lifeline import Lifeline
from messages.transport.spawning import (
    Started,
    environment_with_us,
    interpreter,
    is_stopped,
    spawn,
    start_fork_server,
)
from tests.proc import children, command, descriptors, memory, state
from tests.rig import TIMEOUT_S, until

pytestmark = pytest.mark.skipif(not forking.available(), reason="nothing is forked here")


class Child:
    """A process that runs this code."""

    def __init__(
        self, code: str, *, forked: bool = True, depends: bool = True, **more: str
    ) -> None:
        lifeline = Lifeline() if depends else None
        self.output, theirs = socket.socketpair()
        self.output.settimeout(TIMEOUT_S)
        environment = environment_with_us({**os.environ, **more})
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(self.output.close)
            self.process, self.channel = spawn(
                ["tests.child", code], environment, theirs, lifeline, forked=forked
            )
            undo.pop_all()
        self.lifeline = lifeline
        self.is_forked = isinstance(self.process, Forked)

    def said(self) -> str:
        """Return what it has printed until its end."""
        pieces = []
        while piece := self.output.recv(65536):
            pieces.append(piece)
        return b"".join(pieces).decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        self.output.close()
        self.channel.close()
        if self.lifeline is not None:
            self.lifeline.close()


@contextlib.contextmanager
def running(code: str, **how: Any) -> Iterator[Child]:
    child = Child(code, **how)
    try:
        yield child
    finally:
        child.close()


def said(code: str, **how: Any) -> str:
    """Return what a process has printed, which has been forked or has not, as it was told."""
    with running(code, **how) as child:
        assert child.is_forked == how.get("forked", True)
        return child.said()


def is_ready() -> bool:
    start_fork_server()  # the last one may just have been killed
    client = forking._ours.client
    return client is not None and client.look() and client.is_ready


def start_server() -> int:
    """Start the fork server, unless it runs; return its pid."""
    forking._ours.failures = 0
    until(is_ready, "the fork server is not ready", every_s=0.005)
    pid = forking.server_pid()
    assert pid is not None
    return pid


@pytest.fixture
def server() -> int:
    return start_server()


# -- it is what `python -m` would have made it ------------------------------------------------

TRAITS = {
    "folder": "os.getcwd()",
    "umask": "[os.umask(0)]",
    "environment": "sorted(os.environ.items())",
    "environment of a subprocess": "sorted(subprocess.check_output(['env', '-0']).split(b'\\0'))",
    "environment in proc": "sorted(read('environ').rstrip(b'\\0').split(b'\\0'))",
    "arguments": "[sys.argv, sys.orig_argv]",
    "process group": "os.getpgrp() == os.getpid()",
    "session": "os.getsid(0)",
    "descriptors": "sorted(map(kind, os.listdir('/proc/self/fd')))",
    "inherited descriptors": "[n for n in os.listdir('/proc/self/fd') if int(n) < 3]",
    "signals": "[line for line in read('status').splitlines() if line[:4] in b'SigBSigISigC']",
    "handlers": "[signal.getsignal(n) for n in range(1, 32)]",
    "limits": "[resource.getrlimit(n) for n in range(16)]",
    "search path": "sys.path",
    "flags": "sys.flags",
    "main module": "[main.__spec__.name, main.__file__, main.__name__, __name__]",
    "interpreter": "[sys.executable, sys.prefix, sys.getfilesystemencoding(), sys.warnoptions]",
    "standard streams": "[[it.encoding, it.errors, it.line_buffering, it.mode] for it in streams]",
    "time zone": "time.strftime('%z', time.localtime(0))",
    "language": "locale.setlocale(locale.LC_ALL)",
    "threads": "len(os.listdir('/proc/self/task'))",
    "garbage collection": "[gc.isenabled(), gc.get_threshold()]",
    "user": "[os.getresuid(), os.getresgid(), os.getgroups()]",
}
REPORT = f"""
import gc, json, locale, os, resource, signal, subprocess, sys, time

main, streams = sys.modules["__main__"], (sys.stdin, sys.stdout, sys.stderr)

def read(name):
    with open(f"/proc/self/{{name}}", "rb") as file:
        return file.read()

def kind(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{{descriptor}}").partition(":")[0]
    except OSError:
        return "that of the listing"

print(json.dumps({{name: repr(eval(code)) for name, code in {TRAITS!r}.items()}}))
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], ...]:
    """What two processes say of themselves that somebody unlike the fork server has started."""
    start_server()
    before, limits = os.umask(0o027), resource.getrlimit(resource.RLIMIT_CORE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("folder"))
        patch.setenv("TZ", "Asia/Kathmandu")
        patch.setenv("WITH_ÜMLAUT", "ä=ö\nü")
        patch.setenv("BYTES", os.fsdecode(b"\xff\xfe"))
        patch.setenv("EMPTY", "")
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        resource.setrlimit(resource.RLIMIT_CORE, (0, limits[1]))
        try:
            found = tuple(json.loads(said(REPORT, forked=forked)) for forked in (True, False))
        finally:
            os.umask(before)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
            resource.setrlimit(resource.RLIMIT_CORE, limits)
    return found


@pytest.mark.parametrize("trait", TRAITS)
def test_a_forked_process_is_like_any_other(both: tuple[dict[str, Any], ...], trait: str) -> None:
    forked, other = both

    assert forked[trait] == other[trait]


def test_a_forked_process_works_in_a_folder_that_was_deleted(
    server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()

    assert said("import os\nprint(os.readlink('/proc/self/cwd'))") == f"{folder} (deleted)\n"


def test_ps_and_top_show_what_a_forked_process_is(server: int) -> None:
    with running("1 + 1\ninput()", depends=False) as child:
        name = Path(f"/proc/{child.process.pid}/comm")
        until(lambda: name.read_text() == "1 + 1\ninput()\n", "it has no name of its own")

        shown = [interpreter(), "-P", "-m", "tests.child", "1 + 1\ninput()"]
        assert command(child.process.pid) == shown
        child.channel.close()


def test_a_command_line_longer_than_its_room_is_cut(server: int) -> None:
    long = "import sys\nprint(len(sys.argv[1]))\n#" + "x" * 10_000
    shows = "print(repr(open('/proc/self/cmdline').read().rstrip(chr(0))))\n#" + "x" * 10_000

    assert said(long.replace("sys.argv[1]", "sys.orig_argv[4]")) == f"{len(long) + 5}\n"
    assert "tests.child" in said(shows)


@pytest.mark.parametrize(
    ("code", "expected", "printed"),
    [
        ("pass", 0, ""),
        ("import sys\nsys.exit(7)", 7, ""),
        ("import sys\nsys.exit()", 0, ""),
        ("import sys\nsys.exit('gone wrong')", 1, "gone wrong\n"),
        ("import sys\nsys.exit(['a', 1])", 1, "['a', 1]\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("raise EOFError('1 / 0')", 1, "EOFError: 1 / 0\n"),
        ("import os\nos._exit(9)", 9, ""),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV, ""),
        ("import atexit\natexit.register(print, 'at the end')", 0, "at the end\n"),
        (
            "import threading\nthreading.Timer(0.05, print, ['a thread']).start()",
            0,
            "a thread\n",
        ),
        ("print('unflushed', end='')", 0, "unflushed"),
    ],
)
@pytest.mark.parametrize("forked", [True, False])
def test_a_process_ends_as_its_code_does(
    server: int, forked: bool, code: str, expected: int, printed: str
) -> None:
    with running(code, forked=forked) as child:
        text = child.said()

        assert child.process.wait(TIMEOUT_S) == expected
        assert text.endswith(printed)
        assert ("Traceback" in text) == ("1 / 0" in code)
        assert child.is_forked == forked


def test_forked_processes_have_different_random_numbers(server: int) -> None:
    code = "import random, uuid\nprint(random.random(), uuid.uuid4())"

    first, second = said(code).split(), said(code).split()

    assert not {*first} & {*second}


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_forked_process_can_use_multiprocessing(server: int, method: str) -> None:
    code = f"""
import multiprocessing, operator
with multiprocessing.get_context({method!r}).Pool(1) as pool:
    print(pool.apply(operator.add, (3, 4)))
"""
    assert said(code) == "7\n"


def test_a_subprocess_of_a_forked_one_gets_its_standard_streams_only(server: int) -> None:
    code = """
import os, subprocess
from messages.transport.channel import adopt_stdio
channel = adopt_stdio()
print(subprocess.check_output(["ls", "/proc/self/fd"], close_fds=False, text=True).split())
"""
    assert said(code) == "['0', '1', '2', '3']\n"  # 3 is that of the listing


def test_a_subprocess_of_the_program_inherits_nothing_of_a_forked_one(server: int) -> None:
    look = ["ls", "/proc/self/fd"]
    before = subprocess.check_output(look, close_fds=False)

    with running("input()"):
        assert subprocess.check_output(look, close_fds=False) == before


def test_a_stopped_forked_process_ends_with_the_holder_of_its_lifeline(server: int) -> None:
    with running("input()") as child:
        child.process.send_signal(signal.SIGSTOP)
        until(lambda: is_stopped(child.process.pid), "it is not stopped")
        assert child.lifeline is not None

        child.lifeline.close()

        assert child.process.wait(TIMEOUT_S) == -signal.SIGKILL


def test_what_a_forked_process_has_started_ends_with_it(server: int) -> None:
    code = "import subprocess\nprint(subprocess.Popen(['sleep', '1000'], stdout=2, stderr=2).pid)"
    with running(code) as child:
        started = int(child.said())  # ends when nobody is left who could say something

    assert not Path(f"/proc/{started}/exe").exists()


# -- how it is started ------------------------------------------------------------------------


def test_a_very_long_environment_is_given_to_a_process_that_is_not_forked(server: int) -> None:
    long = {f"LONG_{number}": "x" * 100_000 for number in range(3)}

    with running("import os\nprint(len(os.environ['LONG_2']))", **long) as child:
        assert not child.is_forked
        assert child.said() == "100000\n"
    assert forking.server_pid() == server
    assert said("print('forked')") == "forked\n"


def test_an_environment_longer_than_that_of_the_fork_server_is_whole(server: int) -> None:
    code = "import os\nprint(len(os.environ['LONG']), os.environ['AFTER'])"

    assert said(code, LONG="x" * 100_000, AFTER="all") == "100000 all\n"


def test_a_variable_switches_forking_off(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTVOICE_FORK", "0")

    assert said("print('here')", forked=False) == "here\n"
    with running("pass") as child:
        assert not child.is_forked


@pytest.mark.parametrize(
    ("name", "value"), [("PYTHONHASHSEED", "7"), ("LANG", "C"), ("OPENSSL_CONF", "/dev/null")]
)
def test_what_an_interpreter_reads_at_its_start_needs_another_fork_server(
    server: int, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    another = start_server()

    assert another != server
    assert said(f"import os\nprint(os.environ[{name!r}])") == f"{value}\n"
    until(lambda: not Path(f"/proc/{server}").exists(), "the old one lives on")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may change its uid")
def test_another_user_needs_another_fork_server() -> None:
    program = """
import os, select, sys
from messages.transport import forking
from messages.transport.spawning import environment_with_us
environment = environment_with_us(os.environ)
forking.start(sys.executable, environment)
end = os.pidfd_open(forking.server_pid())
os.setresuid(65534, 65534, 65534)
forking.start("/bin/true", environment)  # ends the other one, which this user may not kill
print(bool(select.select([end], [], [], 10)[0]))
"""
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "True\n"


def test_a_process_forked_from_the_program_has_a_fork_server_of_its_own(server: int) -> None:
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            before = forking.server_pid()
            after = start_server()
            text = said("print('forked')").strip()
            os.write(writer, f"{before} {after != server} {text}".encode())
            forking._end()
        os._exit(0)
    os.close(writer)

    with open(reader) as file:  # noqa: PTH123 - a descriptor
        told = file.read()
    os.waitpid(pid, 0)

    assert told == "None True forked"
    assert is_ready()
    assert forking.server_pid() == server


def test_a_stopped_fork_server_is_not_waited_for(server: int) -> None:
    os.kill(server, signal.SIGSTOP)
    until(lambda: is_stopped(server), "it is not stopped")
    try:
        assert_quick = time.monotonic() + forking._PATIENCE_S
        with running("print('here')") as child:
            assert not child.is_forked
            assert time.monotonic() < assert_quick
            assert child.said() == "here\n"
    finally:
        os.kill(server, signal.SIGCONT)

    assert forking.server_pid() == server
    assert said("print('forked again')") == "forked again\n"


def test_a_fork_server_that_does_not_answer_is_given_up_and_forks_nothing_later(
    server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    monkeypatch.setattr(forking, "_PATIENCE_S", 0.05)
    monkeypatch.setattr("messages.transport.spawning.is_stopped", lambda _: False)
    client = forking._ours.client
    assert client is not None
    process, client._process = client._process, None  # as in a supervisor, which may not end it
    lifeline, client._lifeline = client._lifeline, None
    assert process is not None
    assert lifeline is not None
    os.kill(server, signal.SIGSTOP)

    with running(f"open({str(ran)!r}, 'a').write('x')") as child:
        assert child.process.wait(TIMEOUT_S) == 0
        assert not child.is_forked
        os.kill(server, signal.SIGCONT)
        until(lambda: rests(server), "what it has forked lives on")

    assert ran.read_text() == "x"
    lifeline.close()
    process.wait(TIMEOUT_S)


def rests(pid: int) -> bool:
    """Return whether a fork server has no children, and sleeps."""
    return state(pid) == "S" and not children(pid)


def descriptors_of(pid: int) -> int:
    """Return how many descriptors a fork server has when it rests."""
    until(lambda: rests(pid), "it has something to do", every_s=0.002)
    return descriptors(pid)


def test_the_end_of_the_fork_server_is_not_that_of_its_children(server: int) -> None:
    with running("input()") as child:
        os.kill(server, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{server}/exe").exists(), "it lives on")

        assert child.process.poll() is None
        child.process.kill()
        assert child.process.wait(TIMEOUT_S) == EXIT_UNKNOWN

    with running("print('here')") as child:
        assert not child.is_forked
        assert child.said() == "here\n"
    assert start_server() != server
    assert said("print('forked')") == "forked\n"


def test_the_exit_code_of_a_child_that_has_not_read_its_environment_is_known() -> None:
    answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answers.send(b"A=1\0")
    with subprocess.Popen(["true"]) as process:
        child = Forked(process.pid, os.pidfd_open(process.pid), answers, None)

    with theirs:
        theirs.send(msgspec.msgpack.encode(Answer(process.pid, 7)))

    assert child.wait(TIMEOUT_S) == 7


def test_several_threads_learn_of_an_end_that_nobody_can_explain(server: int) -> None:
    with running("input()") as child, concurrent.futures.ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(child.process.wait, TIMEOUT_S) for _ in range(8)]
        os.kill(server, signal.SIGKILL)
        child.process.kill()

        codes = {one.result() for one in waiting}

    assert codes <= {EXIT_UNKNOWN, -signal.SIGKILL}
    assert len(codes) == 1


def test_fork_servers_that_end_before_they_are_ready_are_not_started_for_ever(
    server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forking._end()
    monkeypatch.setattr(forking, "STAGES", (Stage((), ("os:abort",)),))
    pids = set()

    for _ in range(6):
        start_fork_server()
        if (pid := forking.server_pid()) is not None:
            pids.add(pid)
            until(lambda: not forking._ours.client.look(), "it lives on")  # type: ignore[union-attr]

    assert len(pids) == 3
    assert said("print('here')", forked=False) == "here\n"
    forking._ours.failures = 0


def test_a_fork_server_with_a_thread_forks_nothing(
    server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a package may start one that is imported at the start of each interpreter."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    start_server()

    with running("print('here')") as child:
        assert not child.is_forked
        assert child.said() == "here\n"


def test_without_a_free_descriptor_there_is_an_error_that_says_so(server: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    outcomes = set()
    with contextlib.ExitStack() as undo:
        undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, most)
        for free in range(14):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + highest(), most[1]))
            holes = list(fill())
            for _ in range(free):
                os.close(holes.pop())
            try:
                with running("pass") as child:
                    outcomes.add("started")
                    assert child.is_forked
            except OSError as error:
                outcomes.add(errno.errorcode[error.errno or 0])
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, most)
                for hole in holes:
                    os.close(hole)

    assert outcomes == {"EMFILE", "started"}
    assert said("print('forked')") == "forked\n"


def highest() -> int:
    return max(map(int, os.listdir("/proc/self/fd"))) + 1  # noqa: PTH208


def fill() -> Iterator[int]:
    with contextlib.suppress(OSError):
        while True:
            yield os.dup(0)


@pytest.mark.parametrize("free", [0, 3, 6, 7, 8, 9, 10])
def test_a_fork_server_without_a_free_descriptor_costs_no_process(server: int, free: int) -> None:
    used = descriptors_of(server)
    limits = resource.prlimit(server, resource.RLIMIT_NOFILE)
    resource.prlimit(server, resource.RLIMIT_NOFILE, (used + free, limits[1]))
    try:
        with running("print('here')") as child:
            assert child.said() == "here\n"
            assert child.process.wait(TIMEOUT_S) == 0
    finally:
        resource.prlimit(server, resource.RLIMIT_NOFILE, limits)

    assert said("print('forked')") == "forked\n"
    assert forking.server_pid() == server
    assert descriptors_of(server) == used


def test_several_threads_start_processes_at_once(server: int) -> None:
    forking._end()
    together = threading.Barrier(6)

    def start(number: int) -> str:
        together.wait()
        with running(f"print({number})") as child:
            return child.said()

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        told = list(threads.map(start, range(6)))
        start_server()
        told += list(threads.map(start, range(6)))

    assert told == [f"{number}\n" for number in range(6)] * 2


# -- what it knows and leaves -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "RTVOICE_API_KEY", "LANGCHAIN_API_KEY", "TOKEN"]
)
def test_the_fork_server_has_no_secret(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    canary = "CANARY-" + "".join(reversed("fedcba-1174"))
    monkeypatch.setenv(name, canary)
    forking._end()

    server = start_server()
    assert said(f"import os\nprint(os.environ[{name!r}])") == f"{canary}\n"

    assert canary.encode() not in Path(f"/proc/{server}/environ").read_bytes()
    assert canary.encode() not in memory(server)


@pytest.mark.parametrize("count", [10, pytest.param(1000, marks=pytest.mark.long)])
def test_neither_side_grows_with_the_processes_that_are_forked(server: int, count: int) -> None:
    def use() -> tuple[int, int, int]:
        its = descriptors_of(server)
        return (
            descriptors(os.getpid()),
            its,
            int(Path(f"/proc/{server}/statm").read_text().split()[1]),
        )

    for _ in range(5):
        said("pass")
    before = use()

    for _ in range(count):
        said("pass")

    after = use()
    assert after[:2] == before[:2]
    assert after[2] - before[2] <= 64  # pages


def test_a_stopped_process_that_depends_on_nobody_is_continued_by_the_end_of_the_program() -> None:
    program = """
import os, socket, sys, time
from messages.transport import forking
from messages.transport.spawning import environment_with_us, spawn
code = "import sys\\nsys.stdin.read()"
process, channel = spawn(["tests.child", code], environment_with_us(os.environ), forks=True)
print(type(process).__name__, process.pid, forking.server_pid(), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        kind, *pids = holder.stdout.readline().split()
        child, fork_server = map(int, pids)
        ends = [os.pidfd_open(pid) for pid in (child, fork_server)]
        os.kill(fork_server, signal.SIGKILL)
        assert select.select(ends[1:], [], [], TIMEOUT_S)[0]
        os.kill(child, signal.SIGSTOP)
        until(lambda: is_stopped(child), "it is not stopped")

        holder.kill()

        assert kind == "Forked"
        assert select.select(ends[:1], [], [], TIMEOUT_S)[0]
        for end in ends:
            os.close(end)


def test_a_started_process_is_forked_or_not(server: int) -> None:
    kinds: list[type[Started]] = []
    for forked in (True, False):
        with running("pass", forked=forked) as child:
            kinds.append(type(child.process))

    assert kinds == [Forked, subprocess.Popen]
