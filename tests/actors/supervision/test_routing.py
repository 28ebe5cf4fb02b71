"""Messages are delivered first to the components that the user waits for."""

from __future__ import annotations

from typing import Any, cast

import pytest

from actors.supervision.child import Child
from actors.supervision.routing import Router
from actors.supervision.specs import SPECS, ChildSpec
from messages import CONTROL, CapturedAudio, Message, Rule, ToolCall, encode


class FakeChild:
    """A component that notes in which order messages are delivered."""

    def __init__(self, spec: ChildSpec, kind: type[Message], delivered: list[str]) -> None:
        self.spec = spec
        self.accepts: dict[int, Rule] = {kind.tag(): CONTROL}
        self._delivered = delivered

    def put(self, frame: bytes, **_: Any) -> None:
        self._delivered.append(self.spec.name)


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
