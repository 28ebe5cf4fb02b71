"""The commands for misbehaviour, and when each takes effect."""

from __future__ import annotations

import re

import pytest

from rtvoice.sandbox.faults import (
    CLIENT_EVENTS,
    GARBAGE,
    HELP,
    Fault,
    FaultError,
    Faults,
    parse_fault,
)
from rtvoice.sandbox.session import _EVENTS


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("drop", Fault("drop")),
        ("drop after response.created", Fault("drop", "", "after", "response.created")),
        ("reset before response.done 2", Fault("reset", "", "before", "response.done", 2)),
        ("drop after error", Fault("drop", "", "after", "error")),
        ("close 1011", Fault("close", "1011")),
        (
            "close 4000 gone for now after session.update",
            Fault("close", "4000 gone for now", "after", "session.update"),
        ),
        ("stall", Fault("stall", "inf")),
        ("stall 0.5", Fault("stall", "0.5")),
        ("garbage base64", Fault("garbage", "base64")),
        (
            'send {"type": "after 3"} before response.done',
            Fault("send", '{"type": "after 3"}', "before", "response.done"),
        ),
        ("error server_error It broke.", Fault("error", "server_error It broke.")),
        ("expire 2", Fault("expire", "2")),
        ("refuse 429", Fault("refuse", "429")),
        ("refuse 429 insufficient_quota", Fault("refuse", "429 insufficient_quota")),
        ("refuse silence", Fault("refuse", "silence")),
        ("delay .2", Fault("delay", ".2")),
        ("delay 0.2 of response.done 3", Fault("delay", "0.2", "of", "response.done", 3)),
        (
            "delay response.done of rate_limits.updated",
            Fault("delay", "response.done", "of", "rate_limits.updated"),
        ),
        ("omit response.done 2", Fault("omit", "", "of", "response.done", 2)),
        ("ids", Fault("ids", "prefixes")),
        ("ids own", Fault("ids", "own")),
        (" reorder 7 ", Fault("reorder", "7")),
    ],
)
def test_a_fault_is_read(text, fault):
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Faults are: drop, reset,"),
        ("explode", "'explode' is not a valid fault"),
        ("close", "Write: close CODE [REASON]."),
        ("close 200", "'200' is not a valid value of 'close'"),
        ("drop now", "'now' is not a valid value of 'drop'"),
        ("drop after response.creatd", "no event 'response.creatd'"),
        ("drop of response.created", "does not go with 'of'"),
        ("drop after response.created 0", "not a valid value of 'drop'"),
        ("stall long", "Write: stall [SECONDS]."),
        ("garbage rubbish", "Write: garbage KIND."),
        ("refuse 200", "refuse STATUS [CODE]"),
        ("refuse 401 after response.created", "does not go with 'after'"),
        ("reorder 1 after response.created", "does not go with 'after'"),
        ("delay 1 of response.create", "sent by the client"),
        ("delay 1 after response.created", "does not go with 'after'"),
        ("delay response.done of response.created", "Only these can wait for an event"),
        ("delay response.no of rate_limits.updated", "no event 'response.no'"),
        ("omit", "Write: omit EVENT [N]."),
        ("ids none", "Write: ids [WHICH]."),
        ("omit nothing", "no event 'nothing'"),
    ],
)
def test_what_is_no_fault_is_refused_with_what_there_is(text, told):
    with pytest.raises(FaultError, match=re.escape(told)):
        parse_fault(text)


def test_every_event_of_a_client_can_be_a_moment():
    assert set(CLIENT_EVENTS) == set(_EVENTS)


def test_the_help_has_every_action_and_every_kind_of_garbage():
    actions = set(re.findall(r"^  ([a-z]+) ", HELP, re.MULTILINE))

    assert {parse_fault(f"{word} {value}".strip()).action for word, value in {
        "drop": "", "reset": "", "close": "1000", "stall": "", "silence": "", "trickle": "",
        "garbage": "text", "send": "x", "error": "x", "fail": "x", "expire": "", "refuse": "500",
        "delay": "1", "omit": "error", "reorder": "", "newer": "", "items": "", "ids": "own",
    }.items()} == actions  # fmt: skip
    assert all(kind in HELP for kind in GARBAGE)


def strikes(text, events, when):
    faults = Faults()
    faults.add(parse_fault(text))
    return [index for index, event in enumerate(events) if faults.due(when, event)]


def test_a_fault_strikes_once_at_its_event():
    events = ["response.done", "error", "response.done", "response.done"]

    assert strikes("drop after response.done", events, "after") == [0]
    assert strikes("drop after response.done 2", events, "after") == [2]
    assert strikes("drop after response.done", events, "before") == []


def test_what_happens_to_an_event_happens_each_time_unless_one_is_named():
    events = ["response.done", "error", "response.done", "response.done"]

    assert strikes("omit response.done", events, "of") == [0, 2, 3]
    assert strikes("omit response.done 2", events, "of") == [2]
