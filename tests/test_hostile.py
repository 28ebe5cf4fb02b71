"""Whatever components, programs and the machine do to the supervisor, the session goes on."""

from __future__ import annotations

from messages import ComponentParked, Inject, SessionEnded, SetVolume, Turn
from supervisor import ChildSpec
from tests.hub import Hub
from tests.test_supervisor import ECHO, say


def hostile(kind: str) -> ChildSpec:
    return ChildSpec(name=kind.lower(), target=f"tests.hostile:{kind}")


def test_dead_letters_for_a_component_that_takes_no_more_of_them_have_an_end() -> None:
    with Hub([hostile("Watchdog"), ECHO]) as hub:
        hub.supervisor.send(Inject("watchdog", "raise"))
        hub.expect(ComponentParked)
        for _ in range(2002):
            hub.supervisor.send(SetVolume(0.5))

        say(hub, "still here")

        hub.expect(Turn)
    # One Inject, 1002 SetVolume, and three of the 1003 dead letters; a hundred are named.
    assert "906 more, each told when it happened" in hub.expect(SessionEnded).lost
