"""Who is given a message, in which order, and which messages are asked for."""

from __future__ import annotations

from typing import Any, cast

import pytest

from actors.supervision.child import Child
from actors.supervision.peers import ProgramPeer
from actors.supervision.routing import Router
from actors.supervision.specs import SPECS, ChildSpec
from messages import (
    CONTROL,
    DIRECT,
    CapturedAudio,
    InputLevel,
    Message,
    OutputLevel,
    PlayedAudio,
    ProgramFlush,
    ProgramPlayout,
    ProgramVolume,
    Rule,
    ToolCall,
    Wanted,
    decode,
    encode,
)


class FakeChild:
    """A component that notes in which order messages are delivered."""

    def __init__(self, spec: ChildSpec, kind: type[Message], delivered: list[str]) -> None:
        self.spec = spec
        rule = DIRECT if spec.name == "realtime" else CONTROL
        self.accepts: dict[int, Rule] = {kind.tag(): rule}
        self._delivered = delivered

        self.received: list[Message] = []

    def put(self, frame: bytes, **_: Any) -> None:
        self.received.append(decode(frame))
        self._delivered.append(self.spec.name)


class FakePeer:
    """A program that subscribes to what the test says."""

    def __init__(self) -> None:
        self.tags: frozenset[int] = frozenset()
        self.received: list[Message] = []

    def put(self, frame: bytes) -> None:
        self.received.append(decode(frame))


@pytest.mark.parametrize(
    ("message", "receivers"),
    [
        (CapturedAudio(b"", 0, 0), ["realtime", "recorder"]),
        (ToolCall("c", "clock", "{}"), ["tools", "history"]),
    ],
)
def test_the_component_that_the_user_waits_for_comes_first(
    message: Message, receivers: list[str]
) -> None:
    delivered: list[str] = []
    router = Router(lambda _: True)
    for spec in SPECS:  # history and recorder come before tools and realtime
        if spec.name in receivers:
            router.add(cast("Child", FakeChild(spec, type(message), delivered)))

    router.route(encode(message))

    assert delivered == receivers


def test_what_components_want_that_are_not_known_yet_is_not_called_off() -> None:
    recorder = ChildSpec(name="recorder", target="", needs="recording_path")
    child = cast("Child", FakeChild(recorder, PlayedAudio, []))
    router = Router(lambda _: True)
    peer = FakePeer()
    router.peer = cast("ProgramPeer", peer)

    def subscribe(*kinds: type[Message]) -> list[Message]:
        peer.tags = frozenset(kind.tag() for kind in kinds)
        router.announce_wanted([child])
        received, child.received = child.received, []  # type: ignore[attr-defined]
        return cast("list[Message]", received)

    assert subscribe(InputLevel) == []  # components are opened with what is wanted then
    router.add(child)
    router.complete()

    assert set(router.wanted) == {InputLevel.tag(), PlayedAudio.tag()}
    assert subscribe(InputLevel) == []
    (wanted,) = subscribe(OutputLevel)
    assert isinstance(wanted, Wanted)
    assert set(wanted.tags) == {OutputLevel.tag(), PlayedAudio.tag()}


def test_a_component_that_only_sends_knows_what_is_wanted_and_one_that_is_left_out_does_not() -> (
    None
):
    spec = ChildSpec(name="source", target="")
    source, recorder = FakeChild(spec, Wanted, []), FakeChild(SPECS[0], PlayedAudio, [])
    source.accepts = {}
    children = [cast("Child", source), cast("Child", recorder)]
    router = Router(lambda _: True)
    peer = FakePeer()
    router.peer = cast("ProgramPeer", peer)
    for child in children:
        router.add(child)
    router.leave_out(children[1])
    router.complete()

    peer.tags = frozenset({InputLevel.tag()})
    router.announce_wanted(children)

    assert source.received == [Wanted((InputLevel.tag(),))]
    assert recorder.received == []
    assert peer.received == [Wanted(()), Wanted((InputLevel.tag(),))], "nor does the program"


@pytest.mark.parametrize(
    ("others", "is_wanted"), [((), False), (("recorder",), False), (("mine",), True)]
)
def test_what_is_sent_ahead_is_wanted_at_once_only_by_components_that_do_not_collect_it(
    others: tuple[str, ...], is_wanted: bool
) -> None:
    router = Router(lambda _: True)
    specs = (*SPECS, ChildSpec(name="mine", target=""))
    for spec in specs:
        if spec.name in ("realtime", *others):
            router.add(cast("Child", FakeChild(spec, CapturedAudio, [])))

    assert (CapturedAudio.tag() in router.wanted) is is_wanted


def test_what_a_component_wants_of_what_is_for_the_program_does_not_pass_the_supervisor() -> None:
    """All of it then keeps its order."""
    router = Router(lambda _: True)
    passing = {ProgramPlayout.tag(), ProgramFlush.tag(), ProgramVolume.tag()}
    assert not passing & set(router.wanted)

    router.add(cast("Child", FakeChild(ChildSpec(name="mine", target=""), ProgramFlush, [])))

    assert passing <= set(router.wanted)


def test_what_is_sent_ahead_is_wanted_at_once_by_a_program_that_has_subscribed() -> None:
    router = Router(lambda _: True)
    router.add(cast("Child", FakeChild(SPECS[4], CapturedAudio, [])))
    peer = FakePeer()
    router.peer = cast("ProgramPeer", peer)
    assert router.wanted == ()

    peer.tags = frozenset({CapturedAudio.tag()})

    assert router.wanted == (CapturedAudio.tag(),)
