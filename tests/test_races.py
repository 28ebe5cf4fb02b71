"""Faults of components at the worst moments."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from actors.supervision.child import Child
from actors.supervision.restarting import RestartPolicy
from actors.supervision.sandbox import SandboxChild
from messages import (
    AssistantAudio,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    DeadLetter,
    Inject,
    Notice,
    SendText,
    SessionEnded,
    SessionFailed,
    SessionStarted,
    SetMuted,
    StopSession,
    Turn,
)
from supervisor import ChildSpec
from tests.hub import ECHO, OTHER, Hub
from tests.rig import TIMEOUT_S, alive, wait_until_gone

START_S = TIMEOUT_S / 10
"""Enough for what starts."""


def faulty(kind: str, **fields: object) -> ChildSpec:
    return ChildSpec(name=kind.lower(), target=f"tests.faulty:{kind}", **fields)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RTVOICE_TEST_DIR", str(tmp_path))
    return tmp_path


class Starting(Hub):
    """A hub that is not waited for until it has started."""

    def __enter__(self) -> Starting:
        self._thread.start()
        return self

    def wait_until(self, name: str, state: str, *, not_pid: int = 0) -> int:
        """Wait until a component is in a state, and return its process id."""
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            status = self.supervisor.status().get(name, {})
            if status.get("state") == state and status["pid"] != not_pid:
                return int(status["pid"])
            time.sleep(0.002)
        raise AssertionError(self.supervisor.status())


def test_it_starts_when_the_sandbox_listens_before_every_component_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took_line = SandboxChild._line

    def line(sandbox: SandboxChild, text: str) -> None:
        if hub.supervisor.status()["echo"]["state"] == "loading":
            hub.supervisor.loop.later(0.01, lambda: line(sandbox, text))
        else:
            took_line(sandbox, text)
            (folder / "go").touch()

    monkeypatch.setattr(SandboxChild, "_line", line)
    with Starting([ECHO, faulty("SlowToLoad")], server="sandbox") as hub:
        hub.expect(SessionStarted)


def test_a_component_killed_before_it_is_opened_gets_its_mail_once(folder: Path) -> None:
    with Starting([ECHO, faulty("SlowToLoad")]) as hub:
        killed = hub.wait_until("echo", "loaded")
        os.kill(killed, signal.SIGKILL)
        hub.wait_until("echo", "loaded", not_pid=killed)
        (folder / "go").touch()
        hub.expect(SessionStarted)

        receivers = hub.supervisor._router._table

        assert [child.name for child in receivers[SendText.tag()]] == ["echo", "slowtoload"]
        assert [child.name for child in receivers[SetMuted.tag()]] == ["echo", "slowtoload"]


def test_a_component_killed_before_its_turn_to_be_opened_is_waited_for(folder: Path) -> None:
    (folder / "go").touch()
    with Starting([faulty("SlowToOpen"), faulty("SlowToLoad")]) as hub:
        hub.wait_until("slowtoopen", "opening")
        (folder / "go").unlink()
        killed = hub.wait_until("slowtoload", "loaded")
        os.kill(killed, signal.SIGKILL)
        hub.wait_until("slowtoload", "loading", not_pid=killed)
        (folder / "open").touch()
        hub.wait_until("slowtoopen", "open")
        (folder / "go").touch()

        hub.expect(SessionStarted)


def test_a_component_that_dies_whenever_it_is_loaded_fails_the_start() -> None:
    with Starting([ECHO, faulty("DiesWhileLoading")]) as hub:
        failed = hub.expect(SessionFailed)

    assert failed.reason == "dieswhileloading cannot start: exited with code 9"
    assert hub.exit_code == 2


def test_a_component_that_does_not_open_fails_the_start() -> None:
    with Starting([ECHO, faulty("HangsWhileOpening")], start_s=START_S) as hub:
        failed = hub.expect(SessionFailed)

    why = f"has not started within {START_S:g} s"
    assert failed.reason.startswith(f"hangswhileopening cannot start: {why}; a slow")
    assert hub.exit_code == 2


def test_a_component_that_is_stopped_while_it_opens_is_replaced(folder: Path) -> None:
    with Starting([faulty("SlowToOpen")], hang_s=0.5) as hub:
        stopped = hub.wait_until("slowtoopen", "opening")
        os.kill(stopped, signal.SIGSTOP)
        hub.wait_until("slowtoopen", "opening", not_pid=stopped)
        (folder / "open").touch()
        hub.expect(SessionStarted)

    assert hub.expect(ComponentCrashed).cause.startswith("hung for")


def test_a_sandbox_that_does_not_listen_fails_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SandboxChild, "_LISTENING", "ready at ")

    with Starting([ECHO], server="sandbox", start_s=START_S) as hub:
        failed = hub.expect(SessionFailed)

    assert f"sandbox cannot start: it does not listen after {START_S:g} s" in failed.reason
    assert hub.exit_code == 2


def test_a_log_record_of_a_level_that_nobody_knows_harms_nobody() -> None:
    with Hub([faulty("LogsOddly")]) as hub:
        hub.supervisor.send(SendText("!log", "i"))

        hub.expect(Turn)
        tail = list(hub.supervisor._children["logsoddly"].log_tail)

    assert tail == ["WARNING between warning and error", "WARNING %d pieces"]
    assert not hub.of(ComponentCrashed)
    assert hub.exit_code == 0


def test_what_dies_while_loading_after_good_work_is_parked(folder: Path) -> None:
    with Hub([ECHO, faulty("LoadsNoMore")]) as hub:
        hub.supervisor.send(SendText("good work", "i"))
        hub.settled("loadsnomore")
        (folder / "broken").touch()

        os.kill(hub.pid("loadsnomore"), signal.SIGKILL)

        hub.expect(ComponentParked)
        crashed = [crash.component for crash in hub.of(ComponentCrashed)]
        assert crashed.count("loadsnomore") == 6  # on a busy machine the other may hang meanwhile


def test_a_process_that_ends_slowly_has_ended_when_the_next_one_is_started() -> None:
    with Hub([faulty("KeepsWhatDoesNotClose")]) as hub:
        name = "keepswhatdoesnotclose"
        old = hub.pid(name)
        for times in (1, 2, 3):
            hub.supervisor.send(Inject(name, "raise"))
            hub.wait_for(lambda times=times: len(hub.of(ComponentRestarted)) == times)

        assert hub.pid(name) != old
        hub.supervisor.send(SendText("well again", "i"))
        hub.expect(Turn)
        assert [crash.cause for crash in hub.of(ComponentCrashed)] == [
            "raised InjectedError: injected"
        ] * 3


def test_the_end_of_a_parked_process_is_not_taken_for_that_of_its_successor(folder: Path) -> None:
    with Hub([faulty("OpensAndRaises")]) as hub:
        hub.expect(ComponentParked)
        (folder / "well").touch()

        hub.supervisor.send(SendText("well again", "i"))

        hub.expect(Turn)
        hub.expect(ComponentRestarted, lambda told: told.incarnation == 7)
        causes = {crash.cause for crash in hub.of(ComponentCrashed)}
        assert causes == {"raised ValueError: not well"}


@pytest.mark.parametrize("fork", ["!fork", "!clone"])
def test_a_component_whose_worker_lives_on_is_restarted_and_stopped(fork: str) -> None:
    with Hub([faulty("Forks")]) as hub:
        hub.supervisor.send(SendText(fork, "i"))
        worker = int(hub.expect(Turn).text)
        hub.settled("forks")  # or the next one forks again
        try:
            os.kill(hub.pid("forks"), signal.SIGKILL)
            hub.expect(ComponentRestarted)
            hub.supervisor.send(SendText("again", "j"))
            hub.expect(Turn, lambda turn: turn.text == "again")
            hub.stop()
            assert alive(worker)
        finally:
            os.kill(worker, signal.SIGKILL)


def test_what_a_component_has_started_ends_with_it(folder: Path) -> None:
    (folder / "in our group").touch()
    with Hub([faulty("Forks")]) as hub:
        hub.supervisor.send(SendText("!fork", "i"))
        worker = int(hub.expect(Turn).text)

        os.kill(hub.pid("forks"), signal.SIGKILL)

        hub.expect(ComponentRestarted)
        wait_until_gone([worker], TIMEOUT_S)


def test_what_a_component_has_started_is_ended_once_for_the_number_may_be_anothers_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _: ended.append(group))
    with Hub([faulty("Forks")]) as hub:
        hub.supervisor.send(SendText("!clone", "i"))  # it holds the channel, so we look twice
        worker = int(hub.expect(Turn).text)
        hub.settled("forks")  # or the next one forks again
        killed = hub.pid("forks")
        try:
            os.kill(killed, signal.SIGKILL)
            hub.expect(ComponentRestarted)
            assert ended == [killed]
        finally:
            os.kill(worker, signal.SIGKILL)


def test_kills_in_the_middle_of_opening_cost_no_saved_state(folder: Path) -> None:
    (folder / "open").touch()
    with Starting([faulty("SlowToOpen")]) as hub:
        hub.expect(SessionStarted)
        hub.supervisor.send(SetMuted(True))
        hub.settled("slowtoopen")
        (folder / "open").unlink()
        killed = hub.pid("slowtoopen")
        for _ in range(3):
            os.kill(killed, signal.SIGKILL)
            killed = hub.wait_until("slowtoopen", "opening", not_pid=killed)
        (folder / "open").touch()

        hub.supervisor.send(SendText("!muted", "i"))

        assert hub.expect(Turn).text == "True"
        assert not hub.of(Notice)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exception_in_the_supervisor_ends_it_and_every_component() -> None:
    hub = Hub([ECHO, OTHER])
    with hub:
        pids = [hub.pid("echo"), hub.pid("other")]

        hub.supervisor.loop.call(lambda: 1 // 0)

        wait_until_gone(pids, TIMEOUT_S)
    assert isinstance(hub.error, ZeroDivisionError)


def test_one_bad_opening_now_and_then_costs_no_saved_state() -> None:
    with Hub([ECHO]) as hub:
        hub.supervisor.send(SetMuted(True))
        for times in (1, 2):
            hub.supervisor.send(SendText("works", f"item_{times}"))
            hub.settled("echo")
            hub.supervisor.send(Inject("echo", "raise-on-open"))
            hub.wait_for(lambda times=times: len(hub.of(ComponentRestarted)) == times)

        hub.supervisor.send(SendText("!muted", "muted"))

        assert hub.expect(Turn, lambda turn: turn.item_id == "muted").text == "True"
        assert len(hub.of(ComponentCrashed)) == 4
        assert not hub.of(Notice)


def test_state_that_kills_twice_is_withheld_and_that_is_published() -> None:
    with Hub([faulty("DiesOfItsState")]) as hub:
        hub.supervisor.send(SetMuted(True))
        hub.settled("diesofitsstate")
        os.kill(hub.pid("diesofitsstate"), signal.SIGKILL)

        hub.supervisor.send(SendText("!muted", "i"))

        assert hub.expect(Turn).text == "False"
        assert "saved state" in hub.expect(Notice).text


def test_sound_that_kills_is_given_up_after_its_attempts_and_what_follows_is_handled() -> None:
    with Hub([faulty("DiesOfSound")]) as hub:
        hub.supervisor.send(AssistantAudio(b"\1" * 4800, "poison", "r", 0))
        hub.supervisor.send(AssistantAudio(bytes(4800), "silence", "r", 0))

        hub.expect(Turn)

        letter = hub.expect(DeadLetter)
        assert (letter.message, letter.begun, letter.audio_ms) == ("AssistantAudio", 3, 100)
        assert letter.about == "item_id=poison"
        assert len(hub.of(ComponentCrashed)) == 3


def test_what_hangs_whenever_it_is_open_is_parked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RestartPolicy, "PERIOD_S", 1.0)
    with Hub([faulty("HangsOnceOpen")], hang_s=0.3) as hub:
        assert hub.expect(ComponentParked).cause.startswith("hung for")


def test_what_does_not_open_after_a_crash_is_ended_and_tried_again(folder: Path) -> None:
    (folder / "open").touch()
    with Starting([faulty("SlowToOpen")], start_s=START_S) as hub:
        hub.expect(SessionStarted)
        (folder / "open").unlink()
        os.kill(hub.pid("slowtoopen"), signal.SIGKILL)

        hub.expect(ComponentCrashed, lambda told: "has not started within" in told.cause)

        (folder / "open").touch()
        hub.expect(ComponentRestarted)


def test_what_a_component_writes_that_is_no_message_ends_it_and_nobody_else() -> None:
    with Hub([ECHO, faulty("WritesNonsense")]) as hub:
        pid = hub.pid("echo")
        hub.supervisor.send(SendText("!nonsense", "i"))

        crash = hub.expect(ComponentCrashed)

        hub.supervisor.send(SendText("well again", "j"))
        hub.expect(ComponentRestarted)
        hub.settled("writesnonsense")
        assert crash.cause.startswith("wrote what is not a message: 4294967299 bytes")
        assert "after nonsense" not in [turn.text for turn in hub.of(Turn)]
        assert hub.pid("echo") == pid


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_component_is_never_there_twice() -> None:
    with Hub([faulty("SeesItsPredecessor")]) as hub:
        for times in (1, 2, 3):
            hub.supervisor.send(Inject("seesitspredecessor", "raise"))
            hub.wait_for(lambda times=times: len(hub.of(ComponentRestarted)) == times)

        assert hub.of(ComponentRestarted)[2].process
        assert hub.expect(Turn).text == "alone"


def ending(name: str) -> ChildSpec:
    return ChildSpec(name=name, target="tests.faulty:TellsItsEnd")


def test_what_was_opened_last_is_closed_first(folder: Path) -> None:
    with Hub([ending("first"), ending("second"), ending("third")]):
        pass

    assert (folder / "ends").read_text().split() == ["third", "second", "first"]


def test_a_component_that_does_not_close_keeps_none_from_closing(folder: Path) -> None:
    deaf = ChildSpec(name="deaf", target="tests.tiny:DeafToStop")
    with Hub([ending("first"), deaf, ending("last")], stop_s=3.0):
        pass

    assert (folder / "ends").read_text().split() == ["last", "first"]


def test_however_many_do_not_close_all_of_them_have_one_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaf = [ChildSpec(name=f"deaf{n}", target="tests.tiny:DeafToStop") for n in range(4)]
    reasons: dict[str, str] = {}
    kill = Child.kill

    def noted(child: Child, why: str) -> None:
        reasons.setdefault(child.name, why)
        kill(child, why)

    monkeypatch.setattr(Child, "kill", noted)
    with Hub(deaf, stop_s=1.0):
        pass

    assert reasons["deaf3"] == "did not close"
    assert reasons["deaf0"] == "the supervisor ends"


@pytest.mark.parametrize("fault", ["!raise", "!exit"])
def test_mail_behind_a_fault_is_handled_before_the_end(fault: str) -> None:
    with Hub([ECHO], stop_s=3600) as hub:
        for number in range(30):
            hub.supervisor.send(SendText(fault if number == 3 else str(number), f"item_{number}"))
        hub.stop()

    expected = [str(number) for number in range(30) if number != 3]
    assert [turn.text for turn in hub.of(Turn)] == expected
    assert len(hub.of(DeadLetter)) == 1


def test_a_component_killed_just_before_the_end_gets_its_mail() -> None:
    with Hub([ECHO, OTHER]) as hub:
        hub.settled("echo")
        os.kill(hub.pid("echo"), signal.SIGKILL)
        hub.expect(ComponentCrashed)
        for number in range(20):
            hub.supervisor.send(SendText(str(number), f"item_{number}"))
        hub.stop()

    assert len(hub.of(Turn)) == 20
    assert hub.expect(SessionEnded).lost == ()


def test_a_start_that_is_stopped_does_not_wait_for_mail_to_be_handled(folder: Path) -> None:
    with Starting([ECHO, faulty("SlowToLoad")], stop_s=3600) as hub:
        hub.wait_until("echo", "loaded")
        hub.supervisor.send(SendText("too early", "i"))
        hub.supervisor.send(StopSession("enough"))
        hub.wait_until("slowtoload", "closing")
        (folder / "go").touch()
        hub.stop()

    assert hub.expect(SessionEnded).lost == ("1 SendText to echo (it has ended)",)


def test_mail_that_nobody_could_handle_before_the_end_is_listed_as_lost(folder: Path) -> None:
    with Hub([faulty("LoadsNoMore")], stop_s=2.0) as hub:
        (folder / "broken").touch()
        os.kill(hub.pid("loadsnomore"), signal.SIGKILL)
        hub.expect(ComponentCrashed)
        for number in range(20):
            hub.supervisor.send(SendText(str(number), f"item_{number}"))
        hub.stop()

    assert hub.expect(SessionEnded).lost == ("20 SendText to loadsnomore (it has ended)",)


def test_what_dies_in_its_first_opening_is_opened_for_the_first_time_again(folder: Path) -> None:
    with Starting([faulty("SlowToOpen")]) as hub:
        os.kill(hub.wait_until("slowtoopen", "opening"), signal.SIGKILL)
        (folder / "open").touch()
        hub.expect(SessionStarted)
        hub.supervisor.send(SendText("!first", "i"))
        assert hub.expect(Turn).text == "True"

        os.kill(hub.pid("slowtoopen"), signal.SIGKILL)
        hub.supervisor.send(SendText("!first", "j"))
        assert hub.expect(Turn, lambda turn: turn.item_id == "j").text == "False"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_accounts_themselves_leaves_no_process_behind() -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    with Hub([ECHO, OTHER]) as hub:
        pids = [hub.pid("echo"), hub.pid("other")]
        os.kill(pids[0], signal.SIGSTOP)
        child = hub.supervisor._children["echo"]
        hub.supervisor.loop.call(lambda: setattr(child.mailbox, "settle", broken))
        hub._thread.join(TIMEOUT_S)

    wait_until_gone(pids, TIMEOUT_S)
    assert isinstance(hub.error, RuntimeError)
    assert not hub.supervisor.directory.exists()
