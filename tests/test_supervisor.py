"""The supervisor's policy, on tiny real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from messages import (
    AssistantAudio,
    ComponentCrashed,
    ComponentParked,
    ComponentRestarted,
    Confirm,
    Confirmed,
    DeadLetter,
    FlushPlayback,
    Inject,
    Message,
    MessagesDropped,
    Notice,
    PlaybackFlushed,
    PlayedPosition,
    SendText,
    SessionEnded,
    SessionFailed,
    SessionStarted,
    SetMuted,
    SoundFaltered,
    Turn,
    encode,
)
from messages.transport.page import MAIL
from messages.transport.spawning import is_stopped
from supervisor import SPECS, ChildSpec, ConfigurationError, RestartPolicy, Supervisor
from tests.hub import ECHO, OTHER, Hub, say
from tests.rig import TIMEOUT_S, exists, until


def strike(pid: int, number: int) -> None:
    os.kill(pid, number)
    if number == signal.SIGSTOP:  # it takes effect a little later, perhaps within a message
        until(lambda: is_stopped(pid), "it is not stopped", every_s=0.001)


@pytest.mark.parametrize("fault", ["!raise", "!exit", "!hang"])
def test_messages_behind_a_fault_arrive_once_in_order_and_one_is_lost(fault: str) -> None:
    with Hub([ECHO, OTHER]) as hub:
        other = hub.pid("other")
        say(hub, fault)
        for number in range(20):
            say(hub, str(number))

        hub.expect(Turn, lambda turn: turn.text == "19")

        assert [turn.text for turn in hub.of(Turn)] == [str(number) for number in range(20)]
        assert [(letter.component, letter.message) for letter in hub.of(DeadLetter)] == [
            ("echo", "SendText")
        ]
        assert hub.pid("other") == other


def test_what_is_said_before_the_components_are_there_waits_for_them() -> None:
    hub = Hub([ECHO])
    say(hub, "typed ahead")
    with hub:
        say(hub, "later")

        hub.expect(Turn, lambda turn: turn.text == "later")

    assert [turn.text for turn in hub.of(Turn)] == ["typed ahead", "later"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_component_ended_by_a_signal_works_again_and_loses_nothing(number: int) -> None:
    with Hub([ECHO, OTHER]) as hub:
        say(hub, "before")
        hub.settled("echo")
        strike(hub.pid("echo"), number)
        for text in range(20):
            say(hub, str(text))

        hub.expect(Turn, lambda turn: turn.text == "19")

        assert [turn.text for turn in hub.of(Turn)][1:] == [str(text) for text in range(20)]
        assert not hub.of(DeadLetter)


def test_a_raise_keeps_the_process_twice_and_not_the_third_time() -> None:
    with Hub([ECHO]) as hub:
        pid = hub.pid("echo")

        say(hub, "!raise")  # its handling is begun three times

        hub.wait_for(lambda: len(hub.of(ComponentRestarted)) == 3)
        assert [restart.process for restart in hub.of(ComponentRestarted)] == [False, False, True]
        assert hub.pid("echo") != pid


def test_who_wants_a_new_process_gets_it_without_a_crash_and_without_a_loss() -> None:
    with Hub([ECHO, OTHER]) as hub:
        pid, other = hub.pid("echo"), hub.pid("other")
        hub.supervisor.send(SetMuted(True))
        say(hub, "!anew")
        for number in range(20):
            say(hub, str(number))
        say(hub, "!muted")

        hub.expect(Turn, lambda turn: turn.text == "True")
        told = hub.expect(ComponentRestarted)

        assert [turn.text for turn in hub.of(Turn)][:-1] == [str(number) for number in range(20)]
        assert (told.crashed, told.process, told.cause) == (False, True, "its device is back")
        assert (hub.pid("echo") != pid, hub.pid("other")) == (True, other)
        assert not hub.of(ComponentCrashed)
        assert not hub.of(DeadLetter)
        assert hub.supervisor.status()["echo"]["restarts"] == 0


@pytest.mark.parametrize("kind", ["Restless", "StuckStart"])
def test_who_wants_a_new_process_for_ever_is_never_given_up(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(RestartPolicy, "RENEWAL_SPACING_S", 0.0)
    restless = ChildSpec(name="restless", target=f"tests.tiny:{kind}")
    with Hub([ECHO, restless]) as hub:
        started = lambda: hub.supervisor.status()["restless"]["incarnation"]  # noqa: E731
        until(lambda: started() > RestartPolicy.MAX_CRASHES + 2, "it was given up")

        say(hub, "still here")

        assert hub.expect(Turn).text == "still here"
        assert not hub.of(ComponentParked)
        assert not hub.of(ComponentCrashed)


def test_a_component_may_want_a_new_process_while_the_session_starts() -> None:
    with Hub([ECHO, ChildSpec(name="restless", target="tests.tiny:RestlessOnce")]) as hub:
        hub.expect(SessionStarted)

        assert hub.supervisor.status()["restless"]["incarnation"] == 2
        assert not hub.of(ComponentCrashed)


def test_one_that_wants_another_before_it_was_open_cannot_start() -> None:
    with Hub([ChildSpec(name="restless", target="tests.tiny:RestlessTwice")]) as hub:
        failed = hub.expect(SessionFailed)

    assert failed.reason == "restless cannot start: its device hung"


class Asking(Hub):
    """Wants to know whether its commands are safe before the session has started."""

    def __init__(self) -> None:
        self.recorded: list[bool] = []
        super().__init__([ECHO])
        self.supervisor.send(Confirm(1))

    def receive(self, message: Message) -> None:
        if isinstance(message, Confirmed):
            self.recorded.append((self.supervisor.directory / "session.state").exists())
        super().receive(message)


def test_nothing_is_confirmed_before_the_record_has_it() -> None:
    with Asking() as hub:
        assert hub.expect(Confirmed).number == 1

    assert hub.recorded == [True]


def test_saved_state_survives_the_process() -> None:
    with Hub([ECHO]) as hub:
        hub.supervisor.send(SetMuted(True))
        say(hub, "!exit")

        say(hub, "!muted")

        assert hub.expect(Turn).text == "True"


def test_what_crashes_without_progress_is_parked_and_the_session_goes_on() -> None:
    loop = ChildSpec(name="loop", target="tests.tiny:CrashLoop")
    with Hub([ECHO, loop]) as hub:
        parked = hub.expect(ComponentParked)

        say(hub, "still here")

        assert parked.component == "loop"
        assert hub.expect(Turn).text == "still here"


def test_timers_are_no_progress() -> None:
    loop = ChildSpec(name="loop", target="tests.tiny:CrashLoopOfTimers")
    with Hub([ECHO, loop]) as hub:
        assert hub.expect(ComponentParked).component == "loop"


def test_pings_answered_are_no_progress() -> None:
    loop = ChildSpec(name="loop", target="tests.tiny:CrashLoopOfPings")
    with Hub([loop], hang_s=0.4) as hub:
        hub.expect(ComponentParked)

        assert {crash.cause for crash in hub.of(ComponentCrashed)} == {"exited with code 9"}


def test_one_message_handled_is_progress_though_a_ping_is_not_answered() -> None:
    with Hub([ECHO]) as hub:
        for life in range(1, 8):
            say(hub, "hello")
            hub.wait_for(lambda life=life: len(hub.of(Turn)) == life)
            hub.settled("echo")

            strike(hub.pid("echo"), signal.SIGSTOP)

            hub.wait_for(lambda life=life: len(hub.of(ComponentCrashed)) == life)
            assert not hub.of(ComponentParked)


def test_sound_made_is_progress() -> None:
    loop = ChildSpec(name="loop", target="tests.tiny:CrashLoopOfSound")
    with Hub([loop]) as hub:
        hub.expect(Turn, lambda turn: turn.text == "well")

        hub.expect(ComponentRestarted, lambda told: told.incarnation == 9)
        assert not hub.of(ComponentParked)


def test_state_that_crashes_twice_is_withheld_and_that_is_published() -> None:
    poison = ChildSpec(name="poison", target="tests.tiny:PoisonState")
    with Hub([poison]) as hub:
        hub.supervisor.send(SetMuted(True))
        say(hub, "!exit")

        say(hub, "!muted")

        assert hub.expect(Turn).text == "False"
        assert "saved state" in hub.expect(Notice).text
        raised = [crash for crash in hub.of(ComponentCrashed) if "poison" in crash.cause]
        assert len(raised) == 2


def test_what_a_full_mailbox_drops_is_published_and_counted() -> None:
    slow = ChildSpec(name="slow", target="tests.tiny:Slow", window=1)
    with Hub([slow]) as hub:
        say(hub, "!sleep")
        for number in range(9):
            say(hub, str(number))
            hub.supervisor.send(AssistantAudio(bytes(4800), "i", "r", 0))
            hub.supervisor.send(PlayedPosition("i", number, 0))

        texts = hub.expect(MessagesDropped, lambda told: told.message == "SendText")
        sound = hub.expect(MessagesDropped, lambda told: told.message == "AssistantAudio")
        hub.expect(Turn, lambda turn: turn.text == "8")

    assert (texts.component, texts.count, texts.audio_ms) == ("slow", 6, 0)
    assert (sound.count, sound.audio_ms) == (7, 700)
    assert [turn.text for turn in hub.of(Turn)] == ["!sleep", "6", "7", "8"]
    assert set(hub.expect(SessionEnded).lost) == {
        "6 SendText to slow (mailbox full)",
        "7 AssistantAudio to slow (mailbox full, 700 ms of sound)",
    }


def test_sound_that_falters_is_summed_in_the_status_and_at_the_end() -> None:
    with Hub([ECHO]) as hub:
        for text in ("!falter", "!falter", "done"):
            say(hub, text)
        hub.expect(Turn)

        assert len(hub.of(SoundFaltered)) == 2
        assert hub.supervisor.status()["echo"]["faltered"] == 6

    assert hub.expect(SessionEnded).faltered == ("6 times at the echo (late, 80 ms of silence)",)


def test_faults_are_not_taken_without_probes() -> None:
    with Hub([ECHO], probes=False) as hub:
        hub.supervisor.send(Inject("echo", "exit"))
        hub.supervisor.send(Inject("echo", "SIGKILL"))
        say(hub, "alive")

        hub.expect(Turn)

        assert not hub.of(ComponentCrashed)
        assert not (hub.supervisor.directory / "probe").exists()


def test_what_is_essential_and_crashes_without_progress_fails_the_session() -> None:
    loop = ChildSpec(name="loop", target="tests.tiny:CrashLoop", essential=True)
    with Hub([ECHO, loop]) as hub:
        failed = hub.expect(SessionFailed)

        hub.expect(SessionEnded)

    assert "loop keeps crashing: exited with code 9" in failed.reason
    assert hub.exit_code == 3


def test_a_component_that_cannot_start_is_named_with_its_reason() -> None:
    bad = ChildSpec(name="bad", target="tests.tiny:BadStart")
    with Hub([ECHO, bad]) as hub:
        failed = hub.expect(SessionFailed)

    assert failed.reason == "bad cannot start: OSError: no such device: plughw:9"
    assert hub.exit_code == 2


def test_what_cannot_be_imported_is_not_started_again_while_the_others_close() -> None:
    bad = ChildSpec(name="bad", target="tests.tiny:NoSuchClass")
    slow = ChildSpec(name="slow", target="tests.slow_import:Echo")

    with Hub([bad, slow]) as hub:
        failed = hub.expect(SessionFailed)

    assert failed.component == "bad"
    assert hub.of(ComponentCrashed) == []


def test_a_component_that_loads_late_is_waited_for_whoever_else_is_ready() -> None:
    slow = ChildSpec(name="slow", target="tests.slow_import:Echo")
    hub = Hub([ECHO, slow])
    hub.supervisor.loop.later(0.3, hub.supervisor.open_next)  # as a server that is ready does

    with hub:
        say(hub, "hello")
        hub.wait_for(lambda: len(hub.of(Turn)) == 1)

        assert [hub.supervisor.status()[name]["state"] for name in ("echo", "slow")] == [
            "open",
            "open",
        ]


def test_a_component_that_dies_whenever_it_starts_is_named_with_its_reason() -> None:
    dead = ChildSpec(name="dead", target="tests.tiny:DeadStart")
    with Hub([ECHO, dead]) as hub:
        failed = hub.expect(SessionFailed)

    assert failed.reason == "dead cannot start: exited with code 9"
    assert hub.exit_code == 2


def test_a_component_that_never_has_started_is_named_and_not_waited_for_again() -> None:
    endless = ChildSpec(name="endless", target="tests.tiny:EndlessStart")
    with Hub([ECHO, endless], start_s=3.0) as hub:
        failed = hub.expect(SessionFailed)

    assert failed.reason.startswith("endless cannot start: has not started within 3 s; a slow")
    assert "--start-timeout" in failed.reason
    assert hub.of(ComponentCrashed) == []
    assert hub.exit_code == 2


def test_nothing_is_warned_of_when_components_end_because_another_cannot_start() -> None:
    missing = ChildSpec(name="missing", target="tests.tiny:NoSuchActor")
    with Hub([ECHO, OTHER, missing]) as hub:
        hub.expect(SessionFailed)

    warned = [line for child in hub.supervisor._children.values() for line in child.log_tail]
    assert [line for line in warned if line.startswith("WARNING")] == []


def test_what_is_said_at_opening_misses_nobody_who_loads_late() -> None:
    herald = ChildSpec(name="herald", target="tests.tiny:Herald")
    slow = ChildSpec(name="slow", target="tests.slow_import:Echo")
    with Hub([herald, slow]) as hub:
        assert hub.expect(Turn).text == "I am open"


def test_what_an_earlier_incarnation_writes_is_discarded() -> None:
    with Hub([ECHO]) as hub:
        say(hub, "!linger")
        hub.settled("echo")
        hub.supervisor.send(Inject("echo", "raise"))

        hub.expect(Turn, lambda turn: turn.text == "now")

        assert [turn.text for turn in hub.of(Turn)] == ["now"]


def test_a_crash_is_published_with_its_traceback() -> None:
    with Hub([ECHO]) as hub:
        say(hub, "!raise")

        crash = hub.expect(ComponentCrashed)

    assert crash.cause == "raised ValueError: told to"
    assert "in handle" in crash.traceback


def test_a_component_out_of_memory_is_not_used_again() -> None:
    with Hub([ECHO], memory_limit_mib=200) as hub:
        hub.supervisor.send(Inject("echo", "memory"))

        assert hub.expect(ComponentRestarted).process


def test_an_interrupt_from_the_keyboard_is_not_for_components() -> None:
    with Hub([ECHO]) as hub:
        pid = hub.pid("echo")
        assert os.getpgid(pid) == pid, "the terminal interrupts a group"
        for number in range(20):  # it would take a moment to end
            os.kill(pid, signal.SIGINT)
            say(hub, str(number))
            hub.wait_for(lambda number=number: len(hub.of(Turn)) == number + 1)
            hub.settled("echo")

        assert hub.pid("echo") == pid
        assert not hub.of(ComponentCrashed)


def test_a_component_that_is_stopped_while_it_has_nothing_to_do_is_restarted() -> None:
    with Hub([ECHO]) as hub:
        hub.settled("echo")

        strike(hub.pid("echo"), signal.SIGSTOP)

        assert hub.expect(ComponentCrashed).cause.startswith("hung for")
        hub.expect(ComponentRestarted)


@pytest.mark.parametrize(("hang_s", "late_s"), [(1.0, 2.2), (0.5, 0.8)])
def test_a_component_is_not_blamed_for_a_supervisor_that_did_not_run(
    hang_s: float, late_s: float
) -> None:
    with Hub([ECHO], hang_s=hang_s) as hub:
        say(hub, "before")
        hub.settled("echo")
        pid, child = hub.pid("echo"), hub.supervisor._children["echo"]

        def sleep() -> None:
            child.mailbox.settle(child.slot)
            if child.mailbox.in_flight or child._watch._handled[:1] != (child.slot.handled(MAIL),):
                hub.supervisor.loop.later(0.005, sleep)  # it has just shown a sign of life
                return
            os.kill(pid, signal.SIGSTOP)
            time.sleep(late_s)  # as a laptop does whose lid is closed
            hub.supervisor.route(encode(SendText("after", "after")))
            os.kill(pid, signal.SIGCONT)

        hub.supervisor.loop.call(sleep)

        hub.expect(Turn, lambda turn: turn.text == "after")
        watched = threading.Event()
        hub.supervisor.loop.call(lambda: hub.supervisor.loop.later(hang_s / 2, watched.set))
        assert watched.wait(TIMEOUT_S)
        assert not hub.of(ComponentCrashed)


def test_a_component_with_a_thousand_messages_of_a_kind_unhandled_is_restarted() -> None:
    with Hub([ECHO], hang_s=3600) as hub:
        strike(hub.pid("echo"), signal.SIGSTOP)
        for number in range(1010):
            say(hub, str(number))

        assert hub.expect(ComponentCrashed).cause == "is stuck: 1000 SendText wait unhandled"

        hub.expect(Turn, lambda turn: turn.text == "1000")
        lost = {letter.reason for letter in hub.of(DeadLetter)}
        assert lost == {"1000 SendText wait unhandled"}


def test_stop_ends_a_component_that_does_not_close() -> None:
    deaf = ChildSpec(name="deaf", target="tests.tiny:DeafToStop")
    with Hub([ECHO, deaf], stop_s=1.0) as hub:
        pids = [hub.pid("echo"), hub.pid("deaf")]

    assert not any(exists(pid) for pid in pids)


def test_stop_leaves_no_process_and_no_directory() -> None:
    with Hub([ECHO, OTHER]) as hub:
        pids = [hub.pid("echo"), hub.pid("other")]
        directory = hub.supervisor.directory
        assert directory.exists()

    assert not any(exists(pid) for pid in pids)
    assert not directory.exists()
    assert hub.exit_code == 0


def test_a_flush_overtakes_queued_audio_and_empties_it() -> None:
    with Hub([OTHER]) as hub:
        hub.supervisor._router.peer.tags |= {PlaybackFlushed.tag()}  # type: ignore[union-attr]
        for number in range(500):
            hub.supervisor.send(AssistantAudio(bytes(4800), "i", "r", number * 2400))

        hub.supervisor.send(FlushPlayback("barge-in"))
        first = hub.expect(PlaybackFlushed)
        hub.supervisor.send(FlushPlayback("again"))
        hub.wait_for(lambda: len(hub.of(PlaybackFlushed)) == 2)

        assert first.played_samples <= 8
        assert hub.of(PlaybackFlushed)[1].played_samples == 0


def test_a_turn_that_is_published_twice_is_passed_on_once() -> None:
    with Hub([ECHO]) as hub:
        for item_id in ("one", "one", "two"):
            hub.supervisor.send(SendText("hello", item_id))

        hub.expect(Turn, lambda turn: turn.item_id == "two")

        assert [turn.item_id for turn in hub.of(Turn)] == ["one", "two"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"speed": 9.0}, "speed: 9 is out of range; give a number from 0.25 to 1.5"),
        ({"sped": 1.0}, "sped: there is no such setting; did you mean speed?"),
        ({"log_level": "loud"}, "log_level: 'loud' is not valid; give DEBUG"),
        ({"server": "nowhere"}, "server: 'nowhere' is not valid; give openai, sandbox"),
        ({"components": {"speaker": "app:Mine"}}, "'speaker' is not a valid name of a component"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Supervisor(settings)

    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("given", "who"),
    [(None, {"realtime": "env", "tools": "env", "mine": "env"}), ("given", {"realtime": "given"})],
)
def test_the_key_goes_to_realtime_and_from_the_environment_to_the_users_code(
    monkeypatch: pytest.MonkeyPatch, given: str | None, who: dict[str, str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "env")
    hub = Supervisor({"components": {"mine": "app:Mine"}}, api_key=given)
    names = ["recorder", "history", "speaker", "tools", "realtime", "microphone", "sandbox", "mine"]

    keys = {name: hub.environment_of(name).get("OPENAI_API_KEY") for name in names}
    hub._release()

    assert {name: key for name, key in keys.items() if key} == who


def test_the_session_cannot_go_on_without_realtime_alone() -> None:
    assert [spec.name for spec in SPECS if spec.essential] == ["realtime"]


def test_the_directories_of_dead_supervisors_are_removed_and_those_of_living_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    for owner in (dead.pid, os.getpid(), "nobody"):
        (tmp_path / f"rtvoice-{owner}-x").mkdir()

    Supervisor({})._release()

    left = {directory.name for directory in tmp_path.iterdir()}
    assert left == {f"rtvoice-{os.getpid()}-x", "rtvoice-nobody-x"}


def test_the_directory_of_a_refused_session_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(ConfigurationError):
        Supervisor({"speed": 9.0})

    assert list(tmp_path.iterdir()) == []


def test_what_is_sent_on_demand_is_sent_to_a_component_that_accepts_it() -> None:
    microphone = next(spec for spec in SPECS if spec.name == "microphone")
    gauge = ChildSpec(name="gauge", target="tests.tiny:Gauge")
    with Hub([gauge, microphone], input="silence") as hub:
        assert hub.expect(Notice).text == "-96.0 dBFS"


def test_a_start_that_takes_long_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor._SLOW_START_S", 0.1)
    slow = ChildSpec(name="slow", target="tests.slow_import:Echo")

    with Hub([ECHO, slow]) as hub:
        notice = hub.expect(Notice)

    assert "waiting for" in notice.text
    assert "slow" in notice.text
    assert len(hub.of(Notice)) == 1
