"""A whole conversation with a server that accepts few ids of items, or none, in real processes."""

from __future__ import annotations

import pytest

from messages import DeadLetter, Disconnected, Notice, Reconnected, SendText, ServerError, Turn
from rtvoice.testing import SandboxServer
from supervisor import Session
from tests.rig import TIMEOUT_S


def _ask(session: Session, text: str, item_id: str, part: str) -> None:
    """Type something, and wait for an answer in which these words are."""
    events = session.events(Turn)
    session.send(SendText(text, item_id))
    while (turn := events.get(timeout_s=TIMEOUT_S)) is not None:
        if turn.role == "assistant" and part in turn.text:
            events.close()
            return
    raise AssertionError("the session has ended")


@pytest.mark.parametrize("which", ["prefixes", "own"])
def test_a_conversation_goes_on_at_a_server_that_is_strict_about_ids(which: str) -> None:
    with SandboxServer() as server:
        url = f"{server.url}?misbehave=ids+{which}"
        with Session(
            server=url, input="silence", output="null", inactivity_timeout_s=None
        ) as session:
            wrong = session.events(ServerError, DeadLetter, Notice)
            lost, again = session.events(Disconnected), session.events(Reconnected)

            _ask(session, "my name is Ada", "an id of the program's own, and long", "Ada")
            _ask(session, "what time is it", "t2", "It is ")  # a tool says it
            server.misbehave("drop")
            assert lost.get(timeout_s=TIMEOUT_S) is not None
            event = again.get(timeout_s=TIMEOUT_S)
            _ask(session, "what did i say", "t3", "You said: what time is it")
            session.stop()

            assert isinstance(event, Reconnected)
            assert event.state_restored
            assert wrong.get(timeout_s=TIMEOUT_S) is None
        created = [event["item"] for event in server.of("conversation.item.create")]
        refused = [event["error"]["param"] for event in server.of("error")]
        refused = [param for param in refused if param is not None]  # a cancel that came late, say

    kinds = [item["type"] for item in created]
    assert {"message", "function_call", "function_call_output"} <= set(kinds)
    named = [item for item in created if "id" in item]
    if which == "prefixes":
        assert named == created
        assert refused == []
    else:
        assert named == created[:1]
        assert refused == ["item.id"]
