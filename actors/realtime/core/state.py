"""The saved state of the realtime component, which outlives its process."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from messages import EchoState, SentImage, Tokens, ToolSpec

__all__ = [
    "Answer",
    "Ask",
    "Audible",
    "Ending",
    "InputEnd",
    "Interval",
    "OpenCall",
    "Saved",
    "Talk",
    "TypedTurn",
    "UnansweredTurn",
    "renewed",
]


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A response to request with ``response.create``."""

    instructions: str | None = None
    """Instructions that replace those of the session; None: the session's apply."""
    extra: tuple[str, ...] = ()
    """Instructions that are added to the others."""
    retries: int = 0
    """How often the response has been requested without success."""
    resumed: int = 0
    """How often the response has been resumed after a lost connection."""
    tools: Literal["", "auto", "none"] = ""
    """Its ``tool_choice`` in a session that forces tool calls; empty: the session's applies."""
    insists: bool = False
    """Whether to request the response even if the server begins one unasked."""


class Answer(msgspec.Struct, omit_defaults=True):
    """The current response, to be resumed if the connection or process is lost."""

    response_id: str
    ask: Ask
    begun: bool = False
    """Whether audio of the answer was published or, if it has no audio, text."""
    call: bool = False
    """Whether the response has called a tool."""
    announces: bool = False
    """Whether the last complete item of the response only announces what follows."""
    unasked: bool = False
    """Whether the server began the response unasked."""


class UnansweredTurn(msgspec.Struct, omit_defaults=True):
    """A turn of the user, spoken or typed, that has not been answered."""

    item_id: str
    spoken: bool
    first_sample: int = 0
    """Start of the speech on the session timeline."""
    last_sample: int = 0
    """End of the speech on the session timeline."""
    transcribed: bool = False
    """Whether the transcript of the turn has come, so that its audio need not be sent again."""
    wanted: bool = True
    """Whether a new session requests an answer to the turn. False if the settings leave that to the
    program, or the program has interrupted the answer."""


class Talk(msgspec.Struct, omit_defaults=True):
    """A push-to-talk turn that the server has not confirmed. Samples of the session timeline."""

    first_sample: int
    """Where it begins: with the pre-roll."""
    pressed_sample: int
    """Where the key was pressed."""
    last_sample: int | None = None
    """Where the key was released; None: it is still pressed."""
    respond: bool = True
    """Whether to request a response when the turn is committed."""
    tries: int = 0
    """How often the turn was sent to a further session."""


class OpenCall(msgspec.Struct, omit_defaults=True):
    """A tool call of a response that still lacks the output of one of its calls."""

    call_id: str
    item_id: str
    name: str
    arguments: str
    response_id: str
    output: str | None = None
    """None: the tool has not answered."""
    output_id: str = ""
    """Id of the output's item; empty: it is derived from ``call_id``."""
    respond: bool = True
    """Whether to request a response to the output."""


class TypedTurn(msgspec.Struct, omit_defaults=True):
    """A typed turn that the server has not confirmed."""

    item_id: str
    text: str
    placed: bool = True
    """Whether the preceding item was known when the turn was published to history."""
    image: SentImage | None = None


class Audible(msgspec.Struct, frozen=True, omit_defaults=True):
    """An item that may still have audio to play."""

    item_id: str
    response_id: str
    samples: int
    """Samples received when this was saved. More may have followed unless it is ``complete``."""
    complete: bool = False
    """Whether all audio of the item had been received."""
    text: str = ""
    """The text received when this was saved."""


class Ending(msgspec.Struct, frozen=True):
    """A request to end the conversation once the current response has been played."""

    reason: str
    deadline_ns: int
    """When the conversation ends even if more is still to be played."""


class InputEnd(msgspec.Struct, frozen=True):
    """The end of the input: its last sample, and the time at which it was reported."""

    last_sample: int
    at_ns: int


class Interval(msgspec.Struct, omit_defaults=True):
    """An interval of the session timeline, in samples."""

    first: int
    end: int | None = None
    """The first sample after it; None: it has not ended."""


class Saved(msgspec.Struct, omit_defaults=True):
    """The saved state of the component. Times are ``time.monotonic_ns()``.

    Each field has one owner: the only module that changes the field or its contents. Other modules
    call the owner. A test compares this list with the code:

    - activity: prompted_ns, quiet_since_ns
    - answers: spoken
    - calls: calls, seen_calls
    - closing: ending, input_end
    - consumption: budget_percent, dollars, used
    - context: refuses_ids, resumed
    - core: owed, playing
    - duplex: audible, cancelled, echo, echoes, notified_duplex, notified_echo
    - interruption: paused_by
    - latency: asked_until, heard_response
    - link: connected, greeted
    - outage: offline_since_ns
    - responses: answer
    - setup: cancels_echo, changes, speed, tools, wire_events
    - talking: talks
    - turns: repeats, safe_sample, turns
    - typed: seen_texts, sent_texts, texts
    - user: hears_again, untranscribed
    """

    speed: float = 1.0
    spoken: bool = False
    """Whether the assistant has begun to speak; from then on its voice cannot be changed."""
    greeted: bool = False
    """Whether the greeting was requested."""
    connected: bool = False
    """Whether a session has ever been live; before that, more errors are fatal."""
    safe_sample: int = 0
    """Speech before this sample need not be heard again: it is answered, or history has its
    text."""
    repeats: int = 0
    """How often unanswered speech was sent to a further session; an answer sets it to 0."""
    turns: list[UnansweredTurn] = []
    talks: list[Talk] = []
    answer: Answer | None = None
    owed: Ask | None = None
    """The response that the next process has to request."""
    calls: list[OpenCall] = []
    refuses_ids: bool = False
    """Whether the server refuses the ids that we give items. Items are then sent without an id."""
    resumed: Literal["", "supervisor", "journal", "abandoned"] = ""
    """What an earlier conversation is resumed from, until its history was sent to the server;
    "abandoned": from a journal or after a supervisor, without the state that belongs to it."""
    seen_calls: list[str] = []
    """Ids of the last calls: some servers give the same one again."""
    texts: list[TypedTurn] = []
    sent_texts: list[TypedTurn] = []
    """The newest typed turns that the server has confirmed: history may lack them if the supervisor
    dies."""
    seen_texts: list[str] = []
    """Item ids of the newest typed turns, to recognise a turn that is delivered twice."""
    hears_again: bool = False
    """Whether the last session has not committed speech that was replayed to it. The next session
    is replayed the same speech, and answers it before anything else."""
    untranscribed: list[str] = []
    """Item ids of speech whose transcript has not come."""
    playing: list[Audible] = []
    """The items in the speaker's queue."""
    tools: tuple[ToolSpec, ...] | None = None
    """The tools that the model can call; None: `ToolsAvailable` has not come."""
    ending: Ending | None = None
    input_end: InputEnd | None = None
    offline_since_ns: int | None = None
    """Since when there is no session with the server; None: there is one."""
    quiet_since_ns: int = 0
    """Time of the last activity that counts for the inactivity timeout."""
    prompted_ns: int | None = None
    """Time of the last activity of the assistant that the user's silence has prompted; None: the
    user has been active since."""
    changes: dict[str, Any] = {}
    """The settings that the program has changed, with their values."""
    paused_by: int | None = None
    """When a pause of the speaker ends at the latest; None: it is not paused."""
    audible: list[Interval] = []
    """When the assistant, with its echo, was audible in the last minute."""
    echoes: dict[str, bool] = {}
    """For ``input`` and ``output``, whether the device in use can take part in an echo."""
    notified_duplex: bool = False
    """Whether the notice about half-duplex was published."""
    cancelled: list[Interval] = []
    """When the echo of the assistant was cancelled, in the last minute."""
    echo: EchoState | None = None
    """The last `EchoState` received."""
    notified_echo: bool = False
    """Whether the notice about an echo that is not cancelled was published."""
    cancels_echo: bool = False
    """Whether the devices cancel the echo, so that interruptions are confirmed."""
    asked_until: int | None = None
    """Last sample of speech of which no answer was heard yet; None: there is none."""
    heard_response: str = ""
    """Id of the response whose beginning was heard last."""
    used: Tokens = Tokens()
    """All tokens of the conversation."""
    dollars: float = 0.0
    """Their price in US dollars."""
    budget_percent: int = 0
    """The last `BudgetUsed` that was published; 0: none."""
    wire_events: tuple[str, ...] | None = None
    """Names of the wire events that the program has subscribed to; None: as in the settings."""


def renewed(saved: Saved, now: int) -> Saved:
    """Return what is left of the state of an earlier session, whose timeline is another one.

    Args:
        saved: The state.
        now: The time.
    """
    # The sound of untranscribed speech is gone, so its place in that timeline means nothing.
    turns = [msgspec.structs.replace(turn, first_sample=-1, last_sample=-1) for turn in saved.turns]
    return Saved(
        speed=saved.speed,
        spoken=False,
        greeted=True,
        turns=turns,
        answer=saved.answer,
        owed=saved.owed,
        calls=saved.calls,
        seen_calls=saved.seen_calls,
        texts=saved.texts,
        sent_texts=saved.sent_texts,
        seen_texts=saved.seen_texts,
        quiet_since_ns=now,
        changes=saved.changes,
        used=saved.used,
        dollars=saved.dollars,
    )
