"""A world on a clock of its own around the core: the sandbox's sessions as its server, a speaker, a
microphone, tools and the history as they are, a user who speaks, types, shows images or holds a key
while he talks, and a network that breaks."""

from __future__ import annotations

import atexit
import difflib
import heapq
import itertools
import random
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from actors.conversation import ITEM_MESSAGES, Conversation
from actors.realtime import wire
from actors.realtime.core import restore
from actors.realtime.core.actions import (
    ConnectAfter,
    Disconnect,
    Publish,
    SaveState,
    SendEvent,
    Swap,
    WriteLog,
)
from actors.realtime.core.core import Core
from actors.realtime.core.state import Saved
from actors.realtime.pictures import Pictures
from messages import (
    AssistantAudio,
    CapturedAudio,
    ConversationItem,
    ConversationOver,
    CreateResponse,
    FatalError,
    FlushPlayback,
    HistoryRequest,
    HistorySnapshot,
    Interrupt,
    ItemRemoved,
    Message,
    PausePlayback,
    PlaybackFlushed,
    PlayedPosition,
    Reconnected,
    ReplayCapture,
    ReplayedAudio,
    ReplayEnded,
    ResponseEnded,
    ResumePlayback,
    SendImage,
    SendText,
    SessionInfo,
    SetSpeed,
    Settings,
    StartTalking,
    StopTalking,
    ToolAnswer,
    ToolCall,
    ToolsAvailable,
    ToolSpec,
    Turn,
    UpdateSettings,
    UserItem,
    UserSpeechStarted,
    UserTranscript,
)
from messages import (
    Say as SayNow,
)
from rtvoice.sandbox.brain import RequestedCall, SpokenAnswer, ToolCalls
from rtvoice.sandbox.conversation import Recognition, ServerItem
from rtvoice.sandbox.responses import ResponseOutcome
from rtvoice.sandbox.script import Script
from rtvoice.sandbox.session import Listen, Respond, ServerSession, SpeechRequest

NS, MS = 1_000_000_000, 1_000_000
RATE = 24_000
BLOCK = RATE // 10
GREETING = "Good morning"
LOOKUP = ToolSpec("lookup", "Look a number up", {"type": "object", "properties": {}})
FIRST_LEVEL = 5000
PICTURES = Pictures(Path(tempfile.mkdtemp(prefix="rtvoice-world-")))
atexit.register(shutil.rmtree, PICTURES._folder, ignore_errors=True)


def spoken(number: int, samples: int) -> bytes:
    """The sound of an utterance: its loudness is its number."""
    level = FIRST_LEVEL + number
    wave = np.where(np.arange(samples) // 12 % 2, level, -level)
    return wave.astype("<i2").tobytes()


def cough(samples: int) -> bytes:
    """A noise that is as loud as speech, and no word."""
    wave = np.where(np.arange(samples) // 5 % 2, FIRST_LEVEL, -FIRST_LEVEL)
    return wave.astype("<i2").tobytes()


def understood(pcm: bytes) -> str:
    """What the recogniser makes of it: the numbers of the utterances that are in it."""
    levels = np.abs(np.frombuffer(pcm, "<i2").astype(int))
    loud = levels[levels > FIRST_LEVEL]
    return " ".join(f"ask {level - FIRST_LEVEL}" for level in dict.fromkeys(loud.tolist()))


class Line:
    """A connection to a server of its own, with a delay each way."""

    def __init__(self, world: World, *, spare: bool) -> None:
        self.world = world
        self.spare = spare
        self.is_open = True
        self.delay = int(world.random.uniform(5, 60) * MS)
        self.is_terse = world.random.random() < 0.2
        """Whether it tells of items as some servers do, once and by the old name."""
        self.tells_order = world.random.random() < 0.7
        """Whether it tells what stands before an item, as some servers do not."""
        self.splits = world.random.random() < 0.3
        """Whether a long answer has two items."""
        self.is_rough = world.is_rough
        self.is_vague = self.is_rough and world.random.random() < 0.2
        """Whether it does not say what an error is about."""
        self.script = Script()
        life_s = world.session_s
        self.session = ServerSession(
            "m", expires_at=int(world.now / NS + life_s), script=self.script
        )
        self.refused: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        self._waiting: list[str] = []
        self._active = False
        """Whether the client knows of an answer that is active."""
        self.session.open()
        self.flush()
        world.after(life_s, self.expire)

    # -- on the way ---------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        assert not (self._active and b'"response.create"' in data), "one answer is active already"
        self.world.after_ns(self.delay, lambda: self.receive(data))

    def receive(self, data: bytes) -> None:
        if self.is_open:
            self.world.check_sent(self, msgspec.json.decode(data))
            self.session.receive(data.decode())
            self.flush()

    def flush(self) -> None:
        for event in self.session.take_events():
            if self.is_terse and event["type"] == "conversation.item.done":
                continue
            if self.is_terse and event["type"] == "conversation.item.added":
                event["type"] = "conversation.item.created"
            if not self.tells_order:
                event.pop("previous_item_id", None)
            self.sent.append(event)
            if event["type"] == "error":
                self.refused.append(event["error"])
                if self.is_vague:
                    event = {**event, "error": {**event["error"], "event_id": None}}
            if event["type"] == "response.created" and not self.world.marks:
                event = {**event, "response": {**event["response"], "metadata": None}}
            data = msgspec.json.encode(event)
            self.world.after_ns(self.delay, lambda data=data: self.arrive(data))
        for work in self.session.take_work():
            self.do(work)

    def arrive(self, data: bytes) -> None:
        if self.is_open:
            event = wire.decode(data)
            assert not isinstance(event, wire.BadFrame), event
            if isinstance(event, wire.ResponseCreated | wire.ResponseDone):
                self._active = isinstance(event, wire.ResponseCreated)
            self.world.tell_core(lambda core, now: core.server_event(event, now, spare=self.spare))

    def drop(self, code: int, reason: str = "") -> None:
        """The connection ends; the core is told."""
        if self.is_open:
            self.is_open = False
            self.world.tell_core(lambda core, now: core.lost(code, reason, now, spare=self.spare))

    def expire(self) -> None:
        if self.is_open:
            self.session.expire(60)
            self.flush()
            self.world.after_ns(self.delay, lambda: self.drop(1001, "maximum duration"))

    # -- what the server does -----------------------------------------------------------------

    def do(self, work: Listen | Respond) -> None:
        seconds = self.world.random.uniform(0.1, 0.8)
        if isinstance(work, Listen):
            if self.is_rough and self.world.random.random() < 0.1:
                seconds = self.world.random.uniform(1, 9)
            self.world.after(seconds, lambda: self.hear(work))
        else:
            self.world.after(seconds / 3, lambda: self.think(work.response_id))

    def hear(self, work: Listen) -> None:
        text = understood(work.pcm)
        lost = self.is_rough and self.world.random.random() < 0.1
        self.world.unheard += lost
        self.session.heard(work.item_id, Recognition(1.0, None if lost else text))
        self.flush()
        waiting, self._waiting = self._waiting, []
        for response_id in waiting:
            self.think(response_id)

    def think(self, response_id: str) -> None:
        if not self.is_open:
            return
        if self.session.unheard(response_id):
            self._waiting.append(response_id)
            return
        if self.is_rough and self.world.random.random() < 0.05:
            self.fail(response_id)
            return
        response = self.session._responses.get(response_id)
        if response is not None:
            answer = answer_to(response.context, response.settings["own_instructions"])
            if answer is not None:
                self.script.answers.append(answer)
            if GREETING in (response.settings["own_instructions"] or ""):
                self.world.greetings += 1
        speech = self.session.think(response_id)
        self.script.answers.clear()
        self.flush()
        if speech is not None:
            self.speak(response_id, speech, speech.text.split(" "))

    def fail(self, response_id: str) -> None:
        """An answer comes to nothing, or to no more than this."""
        response = self.session._responses.get(response_id)
        if response is not None:
            self.world.failures += 1
            outcomes = [
                ResponseOutcome.failed("server_error"),
                ResponseOutcome.failed("rate_limit_exceeded"),
            ]
            outcomes += [
                ResponseOutcome.failed("odd"),
                ResponseOutcome.incomplete("content_filter"),
            ]
            self.session._close(response, self.world.random.choice(outcomes))
            self.flush()

    def speak(self, response_id: str, speech: SpeechRequest, words: list[str]) -> None:
        """Speak a word every 60 ms that takes 250 ms to say."""
        if not self.is_open:
            return
        if self.is_rough and self.world.random.random() < 0.005:
            self.fail(response_id)
            return
        if not words:
            self.session.finish(response_id)
            self.flush()
            return
        more = len(words) > 1
        if self.splits and len(words) == 8:
            self.session.begin_item(response_id)
        said = words[0] + (" " if more else "")
        going = self.session.speak(response_id, [said], bytes(2 * RATE // 4))
        self.flush()
        if going:
            self.world.after(0.06, lambda: self.speak(response_id, speech, words[1:]))


def answer_to(
    context: list[ServerItem], instructions: str | None
) -> SpokenAnswer | ToolCalls | None:
    """What the model says: about the last thing that was asked."""
    if instructions and "Say exactly" in instructions:
        return None
    if instructions and (notices := re.findall("notice [0-9]+", instructions)):
        return SpokenAnswer(" and ".join(notices))
    if instructions and "Go on from where" in instructions:
        return SpokenAnswer("and so it goes on and on")
    others = [item for item in context if item.role != "assistant" or item.kind != "message"]
    last = others[-1] if others else None
    if last is None:
        return SpokenAnswer("well then")
    if last.kind == "function_call_output":
        return SpokenAnswer(f"looked up as {last.output} for you")
    number = last.words.split(" ")[-1] if last.words else "nothing"
    if number.isdecimal() and int(number) % 4 == 3:
        return ToolCalls(
            (RequestedCall("lookup", f'{{"number": {number}}}'),) * (1 + int(number) % 2)
        )
    return SpokenAnswer(" ".join(["about", number, *["la"] * 12, "done"]))


class Loudspeaker:
    """Plays in real time, tells where it is, and is silent when it is told to be."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.queue: list[list[Any]] = []
        """[item_id, samples received, samples played, whether all of it is here]"""
        self.played: dict[str, int] = {}
        self.silenced: set[str] = set()
        """Responses of which nothing more is to be heard."""
        self._responses: dict[str, str] = {}
        self.is_paused = False
        self._since = 0
        self._ticking = False
        self._told_ns = 0

    def take(self, audio: AssistantAudio) -> None:
        self.advance()
        assert not (audio.pcm and audio.response_id in self.silenced), "it was interrupted"
        self._responses[audio.item_id] = audio.response_id
        item = next((item for item in self.queue if item[0] == audio.item_id), None)
        if item is None:
            item = [audio.item_id, 0, 0, False]
            self.queue.append(item)
        assert audio.first_sample <= item[1] or not item[1], "something is missing"
        item[1] = max(item[1], audio.first_sample + len(audio.pcm) // 2)
        item[3] = item[3] or audio.last
        self._tick_soon()

    def advance(self) -> None:
        left = (self.world.now - self._since) * RATE // NS
        self._since = self.world.now
        while self.queue and not self.is_paused:
            item = self.queue[0]
            step = min(left, item[1] - item[2])
            item[2] += step
            left -= step
            self.played[item[0]] = max(self.played.get(item[0], 0), item[2])
            if item[2] < item[1] or not (item[3] or len(self.queue) > 1):
                break
            self.queue.pop(0)
            self.world.tell(PlayedPosition(item[0], item[2], self.world.now, True))

    def pause(self, *, paused: bool) -> None:
        self.advance()
        self.is_paused = paused
        self._tick_soon()

    def flush(self, message: FlushPlayback) -> None:
        self.advance()
        self.is_paused = False
        item_id, played = "", 0
        if self.queue:
            item_id, _, played, _ = self.queue[0]
            self.silenced.update(self._responses[item[0]] for item in self.queue)
        self.queue.clear()
        flushed = PlaybackFlushed(item_id, played, self.world.now, message.sent_ns)
        late = self.world.is_rough and self.world.random.random() < 0.1
        self.world.after(0.4 if late else 0.0, lambda: self.world.tell(flushed))

    def _tick_soon(self) -> None:
        if not self._ticking:
            self._ticking = True
            self.world.after(0.02, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        self.advance()
        if self.queue:
            item_id, _, played, _ = self.queue[0]
            if self.world.now >= self._told_ns + NS // 10:
                self._told_ns = self.world.now
                self.world.tell(PlayedPosition(item_id, played, self.world.now))
            self._tick_soon()


class Ear:
    """The microphone: what the user says, block by block, and again when it is asked for."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.next = 0
        self.said: list[tuple[int, int, int]] = []
        """(first sample, last sample, number; 0 for a cough)"""
        self.memory: list[tuple[int, bytes]] = []

    def sample(self) -> int:
        return (self.world.now - self.world.began) * RATE // NS

    def begin(self) -> None:
        self.world.after(0.1, self.capture)

    def capture(self) -> None:
        pcm = bytearray(2 * BLOCK)
        for first, last, number in self.said[-3:]:
            begin, end = max(first, self.next), min(last, self.next + BLOCK)
            if begin < end:
                sound = spoken(number, end - begin) if number else cough(end - begin)
                pcm[2 * (begin - self.next) : 2 * (end - self.next)] = sound
        self.memory.append((self.next, bytes(pcm)))
        del self.memory[: -30 * RATE // BLOCK]
        self.world.tell(CapturedAudio(bytes(pcm), self.next, self.world.now))
        self.next += BLOCK
        self.world.after(0.1, self.capture)

    def replay(self, request: ReplayCapture) -> None:
        for first, pcm in self.memory:
            if first + BLOCK > request.from_sample:
                skip = max(0, request.from_sample - first)
                self.world.tell(ReplayedAudio(pcm[2 * skip :], first + skip, request.request_id))
        self.world.tell(ReplayEnded(self.next, request.request_id))


class World:
    """Everything, on one clock."""

    def __init__(
        self, seed: int = 0, session_s: float = 3600.0, *, is_rough: bool = False, **settings: Any
    ) -> None:
        self.random = random.Random(seed)
        self.is_rough = is_rough
        """Whether servers fail and are vague, and everybody is slow, now and then."""
        self.marks = not (is_rough and self.random.random() < 0.2)
        """Whether servers give back the metadata of an answer."""
        self.session_s = session_s
        self.now = self.began = 1_000_000 * NS
        self.settings = Settings(
            inactivity_timeout_s=None,
            transcription_model="gpt-transcribe",
            greeting=GREETING,
            **settings,
        )
        self.lines: dict[bool, Line] = {}
        self.all_lines: list[Line] = []
        self.history = Conversation()
        self.turns: list[Turn] = []
        self.told: list[Message] = []
        self.calls: list[str] = []
        self.greetings = 0
        self.deaths = 0
        self.offline_until = 0
        self.speaker = Loudspeaker(self)
        self.ear = Ear(self)
        self.asked: list[int] = []
        """The numbers that the user has said, whole."""
        self.typed: list[str] = []
        self.wanted = 0
        """How often the program has asked for an answer."""
        self.notices: list[str] = []
        """What the program wants said."""
        self.noticed: set[str] = set()
        """Of these, what a server was asked to say."""
        self.asked_for: set[str] = set()
        """Of these, what is on its way to a server, or was."""
        self.interrupted: set[str] = set()
        """Of these, what somebody has interrupted on its way."""
        self.failures = self.unheard = 0
        self.coughs = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._timer_ns: int | None = None
        self._saved = b""
        self._epoch = 0
        self.dead = False
        self._mail: list[Callable[[Core, int], None]] = []
        self._last_mail: Message | None = None
        self.info = SessionInfo(epoch_ns=self.began, directory="", server_url="ws://x")
        self.core = Core(self.settings, self.info, None, self.now)
        self.tell_core(lambda core, now: core.opened(now))
        self.tell(ToolsAvailable((LOOKUP,)))
        self.ear.begin()

    # -- time ---------------------------------------------------------------------------------

    def after_ns(self, delay: int, do: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._order), do))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self.after_ns(int(seconds * NS), do)

    def run(self, seconds: float) -> None:
        end = self.now + int(seconds * NS)
        while self._heap and self._heap[0][0] <= end:
            self.now, _, do = heapq.heappop(self._heap)
            do()
        self.now = end

    # -- the core -----------------------------------------------------------------------------

    def tell(self, message: Message) -> None:
        """A message for the core, through its mailbox."""
        self.after_ns(MS // 2, lambda: self.deliver(message))

    def deliver(self, message: Message) -> None:
        if not self.dead:
            self._last_mail = message
        self.tell_core(lambda core, now: self.hand_over(core, message, now))

    def hand_over(self, core: Core, message: Message, now: int) -> None:
        if isinstance(message, SendImage):
            core.image(message, PICTURES.keep(message), now)
        else:
            core.message(message, now)

    def tell_core(self, what: Callable[[Core, int], None]) -> None:
        if self.dead:  # its mail waits
            self._mail.append(what)
            return
        what(self.core, self.now)
        self.perform()

    def perform(self) -> None:
        for action in self.core.take():
            match action:
                case SendEvent(event, spare):
                    if spare in self.lines:
                        if isinstance(event, wire.ItemCreate):
                            event.item = PICTURES.filled(event.item)
                        data = wire.encode(event)
                        self.lines[spare].send(data)
                        if isinstance(event, wire.ResponseCreate):
                            self.asked_for |= self.notices_in(msgspec.json.decode(data))
                case Publish(message):
                    self.publish(message)
                case SaveState(state):
                    self._saved = bytes(state)
                case ConnectAfter(seconds, _, spare):
                    self.close(spare=spare)
                    epoch = self._epoch
                    self.after(seconds + 0.05, lambda s=spare, e=epoch: self.connect(e, spare=s))
                case Disconnect(_, spare):
                    self.close(spare=spare)
                case Swap():
                    self.close(spare=False)
                    self.lines[False] = self.lines.pop(True)
                    self.lines[False].spare = False
                case WriteLog():
                    pass
        self.set_timer()

    def set_timer(self) -> None:
        due = self.core.next_deadline(self.now)
        if due is not None and (self._timer_ns is None or due < self._timer_ns):
            self._timer_ns = due
            self.after_ns(due - self.now, lambda: self.tick(due))

    def tick(self, due: int) -> None:
        if self._timer_ns == due and not self.dead:
            self._timer_ns = None
            self.tell_core(lambda core, now: core.tick(now))

    def connect(self, epoch: int, *, spare: bool) -> None:
        if epoch != self._epoch:
            return
        fails = spare and self.is_rough and self.random.random() < 0.5
        if self.now < self.offline_until or fails:
            self.tell_core(lambda core, now: core.connect_failed(0, "", "down", now, spare=spare))
            return
        self.tell_core(lambda core, now: core.connected(now, now, spare=spare))
        self.lines[spare] = Line(self, spare=spare)
        self.all_lines.append(self.lines[spare])

    def close(self, *, spare: bool) -> None:
        line = self.lines.pop(spare, None)
        if line is not None:
            line.is_open = False

    # -- what happens to it -------------------------------------------------------------------

    def drop(self, offline_s: float = 0.0) -> None:
        self.offline_until = self.now + int(offline_s * NS)
        for line in list(self.lines.values()):
            line.drop(1006)

    def die(self) -> None:
        """The process of realtime is killed, and a new one opened."""
        self.deaths += 1
        self._epoch += 1
        for spare in (False, True):
            self.close(spare=spare)
        self._timer_ns = None
        saved = msgspec.msgpack.decode(self._saved, type=Saved) if self._saved else None
        info = msgspec.structs.replace(self.info, first=False)
        self.dead = True
        self.after(0.2, lambda epoch=self._epoch: self.live_again(epoch, info, saved))

    def live_again(self, epoch: int, info: SessionInfo, saved: Saved | None) -> None:
        if epoch != self._epoch:
            return  # it was killed again
        self.dead = False
        self.core = Core(self.settings, info, saved, self.now)
        self.tell_core(lambda core, now: core.opened(now))
        mail, self._mail = self._mail, []
        last = self._last_mail
        if last is not None and last.attempts > 1:  # it was not known whether it was handled
            self.tell_core(lambda core, now: self.hand_over(core, last, now))
        for what in mail:
            self.tell_core(what)

    # -- the others ---------------------------------------------------------------------------

    def publish(self, message: Message) -> None:
        if isinstance(message, ITEM_MESSAGES):
            self.after_ns(MS, lambda: self.remember(message))
        match message:
            case AssistantAudio():
                self.after_ns(MS, lambda: self.speaker.take(message))
            case FlushPlayback():
                self.after_ns(MS, lambda: self.speaker.flush(message))
            case PausePlayback() | ResumePlayback():
                paused = isinstance(message, PausePlayback)
                self.after_ns(MS, lambda: self.speaker.pause(paused=paused))
            case ReplayCapture():
                self.after_ns(MS, lambda: self.ear.replay(message))
            case HistoryRequest():
                self.after_ns(MS, lambda: self.snapshot(message))
            case ToolCall():
                self.work(message)
            case UserSpeechStarted() | UserItem(spoken=False):
                self.interrupted |= self.asked_for - self.noticed
            case FatalError() | ConversationOver():
                raise AssertionError(message)
        if not isinstance(message, AssistantAudio):
            self.told.append(message)

    def remember(self, message: Message) -> None:
        self.history.apply(message, self.now / NS)
        self.tell_turns()

    def tell_turns(self) -> None:
        turns, _ = self.history.turns(self.now / NS)
        for turn in turns:
            self.history.tell(turn.item_id)
            self.turns.append(turn)

    def snapshot(self, request: HistoryRequest) -> None:
        late = self.is_rough and self.random.random() < 0.2
        snapshot = HistorySnapshot(request.request_id, self.history.items())
        self.after(1.0 if late else 0.0, lambda: self.tell(snapshot))

    def work(self, call: ToolCall) -> None:
        if call.call_id in self.calls:
            return
        self.calls.append(call.call_id)
        answer = ToolAnswer(call.call_id, call.name, f'"{len(self.calls)}"')

        def done() -> None:
            self.tell(answer)
            self.after(0.02, lambda: self.remember(answer))

        self.after(self.random.choice([0.05, 0.5, 4.0]), done)

    # -- the user -----------------------------------------------------------------------------

    def say(self) -> int:
        """The user says the next thing, for 1.2 s."""
        number = len(self.asked) + 1
        first = max(self.ear.next, self.ear.sample())
        self.ear.said.append((first, first + 12 * RATE // 10, number))
        self.asked.append(number)
        return number

    def talk(self) -> None:
        """The user says the next thing; with push-to-talk, while the key is pressed."""
        if self.settings.turn_detection is not None:
            self.say()
            self.run(1.8)  # with the silence that ends a turn
            return
        self.tell(StartTalking(self.now))
        self.run(0.2)
        self.say()
        self.run(1.4)
        self.tell(StopTalking(self.now))
        self.run(0.2)

    def tap(self) -> None:
        """The user touches the key."""
        self.tell(StartTalking(self.now))
        self.run(0.05)
        self.tell(StopTalking(self.now))

    def show(self) -> None:
        text = f"typed {len(self.typed)}"
        self.typed.append(text)
        self.tell(SendImage(b"\x89PNG", "image/png", text, f"t{len(self.typed)}"))

    def ask(self) -> None:
        """The program asks for an answer."""
        self.wanted += 1
        self.tell(CreateResponse())

    def notify(self) -> None:
        """The program wants something said."""
        self.notices.append(f"notice {len(self.notices)}")
        self.tell(SayNow(self.notices[-1]))

    def change(self) -> None:
        """The program changes settings."""
        self.tell(SetSpeed(self.random.choice([0.5, 1.0, 1.5])))
        self.tell(UpdateSettings({"instructions": f"Be {self.random.random()}"}))

    def cough(self) -> None:
        """The user coughs, for 0.2 s."""
        first = max(self.ear.next, self.ear.sample())
        self.ear.said.append((first, first + RATE // 5, 0))
        self.coughs += 1

    def type(self) -> None:
        text = f"typed {len(self.typed)}"
        self.typed.append(text)
        self.tell(SendText(text, f"t{len(self.typed)}"))

    def interrupt(self) -> None:
        self.interrupted |= self.asked_for - self.noticed
        self.tell(Interrupt())

    def settle(self, seconds: float = 40.0) -> None:
        """Let everything come to rest."""
        self.run(seconds)
        while self.core.phase.name != "LIVE" and self.is_rough and seconds < 60:
            seconds += 1  # a session was just about to be renewed
            self.run(1.0)
        self.tell_turns()
        assert not self.core._context.responses.busy(), "an answer is still owed"
        assert not self.speaker.queue, "something is not played"
        assert self.core.phase.name == "LIVE"

    # -- laws ---------------------------------------------------------------------------------

    def check_sent(self, line: Line, event: dict[str, Any]) -> None:
        """What we send is right at the moment at which the server gets it."""
        if event["type"] == "conversation.item.truncate":
            heard = self.speaker.played.get(event["item_id"], 0)
            assert event["audio_end_ms"] * 24 <= heard + 24, (event, heard)
        self.noticed |= self.notices_in(event)

    def notices_in(self, event: dict[str, Any]) -> set[str]:
        told = event.get("response", {}).get("instructions") or ""
        return {notice for notice in self.notices if f'"{notice}"' in told}

    def check(self) -> None:
        """Hold the laws once everything is at rest."""
        self.check_refusals()
        self.check_calls()
        self.check_chain()
        self.check_views()

    def check_refusals(self) -> None:
        """Nothing was refused but for what two who act at once cannot know of each other."""
        races = ("conversation_already_has_active_response", "response_cancel_not_active")
        for line in self.all_lines:
            for error in line.refused:
                if error["param"] == "session.audio.output.speed":
                    continue  # it began to answer meanwhile
                assert error["code"] in (*races, "session_expired"), error

    def check_calls(self) -> None:
        """Each call has one output at the server that we talk with."""
        items = list(self.lines[False].session._conversation)
        calls = sorted(item.call_id for item in items if item.kind == "function_call")
        outputs = sorted(item.call_id for item in items if item.kind == "function_call_output")
        assert calls == outputs

    def check_chain(self) -> None:
        """Each item of history stands behind one that it has, and none behind itself."""
        before = {item.item_id: item.previous for item in self.history._items.values()}
        assert not {before[item_id] for item_id in before} - {*before, None}, before
        for item_id in before:
            at, seen = item_id, {item_id}
            while (at := before[at]) is not None:
                assert at not in seen, before
                seen.add(at)

    def check_views(self) -> None:
        """The server's view of the conversation is the history's."""
        ours = [item for item in self.history.items() if item.kind != "message" or item.text]
        wire_ids = {restore.wire_id(item.item_id): item.item_id for item in ours}
        # Of speech without a transcript history has no text, the server has its sound. Of what was
        # cut off before its first word, neither has.
        unheard = {
            restore.wire_id(item.item_id)
            for item in self.history.items()
            if item.role == "user" and not item.transcribed
        }
        theirs = [
            item
            for item in self.lines[False].session._conversation
            if item.kind != "message"
            or (item.words and item.id not in unheard)
            or item.id in wire_ids
        ]
        assert [wire_ids.get(item.id, item.id) for item in theirs] == [
            item.item_id for item in ours
        ], self.describe(theirs, ours)
        for their, our in zip(theirs, ours, strict=True):
            if their.kind == "function_call_output":
                assert their.output == our.output
            elif their.kind == "message" and their.words:
                assert their.words.strip() == our.text.strip(), (their.id, their.words, our)
            elif their.kind == "message":  # cut off: the server does not know the words any more
                assert our.interrupted, our
            sees = any(part.kind == "input_image" for part in their.content)
            assert sees == (our.image is not None), our

    def check_turns(self) -> None:
        """What the user has said and typed is there once, in order, in history and as turns.

        The text of speech may be lost with the connection; that it was said is not. A cough has no
        text either. With half-duplex nobody hears what is said while the assistant is audible.
        """
        there = [item for item in self.history.items() if item.kind == "message"]
        remembered = [item.text for item in there if item.role == "user"]
        told = [turn.text for turn in self.turns if turn.role == "user"]
        # A turn that is heard again may have been told before, without a text.
        removed = len([message for message in self.told if isinstance(message, ItemRemoved)])
        both = [(remembered, 0), (told, removed)]
        if self.is_rough:  # then one with its text may have been told, as one before it has none
            both.pop()
        for texts, twice in both:
            assert [text for text in texts if text.startswith("typed")] == self.typed, texts
            words = " ".join(text or "ask lost" for text in texts if not text.startswith("typed"))
            said = [word for word in words.split() if word != "ask"]
            if self.settings.duplex == "half":  # what was said is cut in two where nobody listens
                said = [word for word, _ in itertools.groupby(said)]
            kept = [word for word in said if word != "lost"]
            assert kept == [str(number) for number in self.asked if str(number) in kept], texts
            if self.settings.duplex == "half":
                continue
            missing = len(self.asked) - len(kept)
            assert missing == 0 or self.all_lines[1:] or self.unheard, texts
            assert missing <= said.count("lost") <= missing + self.coughs + twice, texts

    def check_answers(self) -> None:
        """No question has two whole answers."""
        questions = [number for number in self.asked if number % 4 != 3]
        questions += range(len(self.typed))
        for number in set(questions):
            answers = [
                item
                for item in self.history.items()
                if item.role == "assistant" and item.complete and not item.interrupted
                if item.text.startswith(f"about {number} ") and item.text.endswith("done")
            ]
            assert len(answers) <= questions.count(number) + self.wanted, answers

    def is_answered(self) -> bool:
        """Tell whether the assistant has had the last word."""
        last = self.history.items()[-1]
        return last.kind == "message" and last.role == "assistant"

    def is_interrupted(self) -> bool:
        """Tell whether speech that nobody answers has ended the last answer."""
        ends = [message for message in self.told if isinstance(message, ResponseEnded)]
        vad = self.settings.turn_detection
        kept = vad is not None and not vad.create_response
        by_speech = ("turn_detected", "client_cancelled")
        return kept and bool(ends) and ends[-1].reason in by_speech

    @staticmethod
    def describe(theirs: list[ServerItem], ours: list[ConversationItem]) -> str:
        """Show how the server's view and the history's differ."""
        one = [f"{item.id[-20:]} {item.kind} {item.words or item.output}" for item in theirs]
        other = [f"{item.item_id[-20:]} {item.kind} {item.text or item.output}" for item in ours]
        return "\n".join(["server - history", *difflib.unified_diff(one, other, lineterm="")])

    def reconnects(self) -> list[Reconnected]:
        return [message for message in self.told if isinstance(message, Reconnected)]

    def transcripts(self) -> list[UserTranscript]:
        return [message for message in self.told if isinstance(message, UserTranscript)]
