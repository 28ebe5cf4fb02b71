"""What the realtime component remembers across the death of its process."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from messages import SentImage, ToolSpec

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
]


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer that is to be asked for (``response.create``)."""

    instructions: str | None = None
    """In place of those of the session."""
    extra: tuple[str, ...] = ()
    """In addition to those of the session."""
    retries: int = 0
    """How often it has been asked for in vain."""
    goes_on: int = 0
    """With an answer that so many lost connections have cut off it goes on."""
    tools: Literal["", "auto", "none"] = ""
    """Its ``tool_choice`` in a session whose turns have to call a tool; empty: it has to, too."""
    insists: bool = False
    """Whether an answer that the server gives by itself does not do for it."""


class Answer(msgspec.Struct, omit_defaults=True):
    """The answer under way."""

    response_id: str
    ask: Ask
    begun: bool = False
    """Some of its sound has come or, of an answer without, of its text."""
    call: bool = False
    """It has called a tool."""
    announces: bool = False
    """Its last whole item only says what is to come."""
    unasked: bool = False
    """The server has begun it by itself."""


class UnansweredTurn(msgspec.Struct, omit_defaults=True):
    """Something the user has said or typed and that has not been answered."""

    item_id: str
    spoken: bool
    first_sample: int = 0
    last_sample: int = 0
    transcribed: bool = False
    wanted: bool = True
    """Whether it is to be answered; not if the settings leave that to the program."""


class Talk(msgspec.Struct, omit_defaults=True):
    """A turn by push-to-talk of which the server has not said that it is an item."""

    first_sample: int
    pressed_sample: int
    """Where the key was pressed, after the pre-roll."""
    last_sample: int | None = None
    """None: the key is pressed."""
    respond: bool = True
    tries: int = 0
    """How often it was sent again."""


class OpenCall(msgspec.Struct, omit_defaults=True):
    """A tool call of an answer whose calls are not all answered."""

    call_id: str
    item_id: str
    name: str
    arguments: str
    response_id: str
    output: str | None = None
    output_id: str = ""
    respond: bool = True


class TypedTurn(msgspec.Struct, omit_defaults=True):
    """A typed turn that the server has not confirmed."""

    item_id: str
    text: str
    placed: bool = True
    """Whether it was known what stands before it."""
    image: SentImage | None = None


class Audible(msgspec.Struct, frozen=True, omit_defaults=True):
    """An item whose sound is not known to have been played to its end."""

    item_id: str
    response_id: str
    samples: int
    """Received when this was saved; all of them if it is ``complete``."""
    complete: bool = False
    text: str = ""
    """As far as it had come."""


class Ending(msgspec.Struct, frozen=True):
    """The conversation ends when what is being said has been played."""

    reason: str
    deadline_ns: int


class InputEnd(msgspec.Struct, frozen=True):
    """Where and when the input came to its end."""

    last_sample: int
    at_ns: int


class Interval(msgspec.Struct, omit_defaults=True):
    """A stretch of the session, in samples."""

    first: int
    end: int | None = None
    """None: it goes on."""


class Saved(msgspec.Struct, omit_defaults=True):
    """The state of the component. Times are ``time.monotonic_ns()``.

    Each field has one owner: the module that changes it, or what is in it. The other modules ask
    the owner to. A test compares this list with the code:

    - activity: prompted_ns, quiet_since_ns
    - answers: spoken
    - calls: calls
    - closing: ending, input_end
    - core: owed, playing
    - duplex: audible, echoes, told_duplex
    - interruption: paused_by
    - link: connected, greeted
    - responses: answer
    - setup: changes, speed, tools, wire_events
    - talking: talks
    - turns: repeats, safe_sample, turns
    - typed: seen_texts, texts
    - user: untranscribed
    """

    speed: float = 1.0
    spoken: bool = False
    """Whether the assistant has been heard, so that its voice stays."""
    greeted: bool = False
    connected: bool = False
    """Whether there was a session with the server before."""
    safe_sample: int = 0
    """Everything said before it is answered, or in the history as text."""
    repeats: int = 0
    """How often speech was sent again without an answer coming."""
    turns: list[UnansweredTurn] = []
    talks: list[Talk] = []
    answer: Answer | None = None
    owed: Ask | None = None
    calls: list[OpenCall] = []
    texts: list[TypedTurn] = []
    seen_texts: list[str] = []
    """Item ids of the last typed turns, to know one that is delivered twice."""
    untranscribed: list[str] = []
    """Item ids of speech whose text has not come."""
    playing: list[Audible] = []
    tools: tuple[ToolSpec, ...] | None = None
    ending: Ending | None = None
    input_end: InputEnd | None = None
    quiet_since_ns: int = 0
    """When the user did something last, or the assistant for the user."""
    prompted_ns: int | None = None
    """When the assistant did something last, if it does it because the user is silent."""
    changes: dict[str, Any] = {}
    """What the program has changed of the settings."""
    paused_by: int | None = None
    """The speaker is paused, until then at the latest; None: it is not."""
    audible: list[Interval] = []
    """When the assistant was audible, the echo included, in the last minute."""
    echoes: dict[str, bool] = {}
    """Whether the devices in use, ``input`` and ``output``, may hear and make an echo."""
    told_duplex: bool = False
    wire_events: tuple[str, ...] | None = None
    """Names of the wire events to be passed on; None: as the settings say."""
