"""The protocol, event by event, without a socket."""

from __future__ import annotations

import base64
import json
from collections import Counter

import numpy as np
import pytest

from rtvoice.sandbox.conversation import Recognition
from rtvoice.sandbox.session import Listen, Respond, ServerSession
from tests.sandbox.client import CLOCK, MS, silence
from tests.sandbox.test_vad import voice

TURN = np.concatenate([np.zeros(24 * 500), voice(800), np.zeros(24 * 600)]).astype("<i2").tobytes()
"""Half a second of silence, 0.8 s of something like speech, and silence that ends it."""


class Talk:
    """A session whose work the test does, when it likes."""

    def __init__(self, **options):
        self.session = ServerSession("gpt-realtime-2.1", **options)
        self.events = []
        self.work = []
        self.heard = "hello"
        self.session.open()
        self._collect()

    def send(self, kind, **fields):
        return self.send_raw(json.dumps({"type": kind, **fields}))

    def send_raw(self, frame):
        """Give a frame to the session; the events that it caused."""
        self.session.receive(frame)
        return self._collect()

    def append(self, pcm, cut=40 * MS):
        events = []
        for at in range(0, len(pcm), cut):
            audio = base64.b64encode(pcm[at : at + cut]).decode()
            events += self.send("input_audio_buffer.append", audio=audio)
        return events

    def type(self, text, role="user", **fields):
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
        return self.send("conversation.item.create", item={**item, **fields})

    def listen(self):
        """Recognise everything that waits for it."""
        for work in [each for each in self.work if isinstance(each, Listen)]:
            self.work.remove(work)
            self.session.heard(work.item_id, Recognition(0.8, self.heard))
        return self._collect()

    def think(self):
        """Begin the oldest answer that waits; what is to be spoken, or None."""
        work = next(each for each in self.work if isinstance(each, Respond))
        self.work.remove(work)
        speech = self.session.think(work.response_id)
        self._collect()
        return work.response_id, speech

    def speak(self, seconds=0.4):
        """Begin an answer and speak the first of it."""
        response_id, speech = self.think()
        first, *rest = speech.text.split(" ", 1)
        self.session.speak(response_id, [first], bytes(int(seconds * 1000) * MS))
        self._collect()
        return response_id, rest

    def respond(self):
        """Do all the work that there is."""
        events = self.listen()
        while any(isinstance(each, Respond) for each in self.work):
            before = len(self.events)
            response_id, speech = self.think()
            if speech is not None:
                self.session.speak(response_id, [speech.text], bytes(400 * MS))
                self.session.finish(response_id)
                self._collect()
            events += self.events[before:]
        return events

    def configure(self, **session):
        return self.send("session.update", session={"type": "realtime", **session})

    def settings(self):
        return self.configure()[0]["session"]

    def _collect(self):
        events = self.session.take_events()
        self.events += events
        self.work += self.session.take_work()
        return events


@pytest.fixture
def talk():
    return Talk()


def kinds(events):
    return [event["type"] for event in events]


def only(events, kind):
    return [event for event in events if event["type"] == kind]


def error_of(events):
    assert kinds(events) == ["error"]
    return events[0]["error"]


# The session.


def test_the_first_event_is_session_created(talk):
    session = talk.events[0]["session"]

    assert kinds(talk.events) == ["session.created"]
    assert session["type"] == "realtime"
    assert session["object"] == "realtime.session"
    assert session["model"] == "gpt-realtime-2.1"
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"


def test_an_update_changes_what_it_names_and_nothing_else(talk):
    before = talk.settings()

    update = {"audio": {"output": {"voice": "marin"}}, "instructions": "Be brief."}
    (event,) = talk.configure(**update)

    after = event["session"]
    assert event["type"] == "session.updated"
    assert after["audio"]["output"] == {**before["audio"]["output"], "voice": "marin"}
    assert after["audio"]["input"] == before["audio"]["input"]
    assert after["instructions"] == "Be brief."


def test_turn_detection_keeps_what_an_update_leaves_out(talk):
    talk.configure(
        audio={"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 700}}}
    )

    (event,) = talk.configure(
        audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}}
    )

    vad = event["session"]["audio"]["input"]["turn_detection"]
    assert (vad["silence_duration_ms"], vad["create_response"]) == (700, False)


@pytest.mark.parametrize(
    "vad", [None, {"type": "semantic_vad", "eagerness": "low"}, {"type": "server_vad"}]
)
def test_every_kind_of_turn_detection_is_accepted(talk, vad):
    (event,) = talk.configure(audio={"input": {"turn_detection": vad}})

    shown = event["session"]["audio"]["input"]["turn_detection"]
    assert shown is None if vad is None else shown["type"] == vad["type"]


def test_empty_instructions_clear_them(talk):
    assert talk.settings()["instructions"]

    (event,) = talk.configure(instructions="")

    assert event["session"]["instructions"] == ""


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({}, "missing_required_parameter", "session.type"),
        ({"type": "transcription"}, "invalid_value", "session.type"),
        ({"type": "realtime", "temperature": 0.8}, "unknown_parameter", "session.temperature"),
        ({"type": "realtime", "modalities": ["text"]}, "unknown_parameter", "session.modalities"),
        (
            {"type": "realtime", "output_modalities": ["text", "audio"]},
            "invalid_value",
            "session.output_modalities",
        ),
        (
            {"type": "realtime", "audio": {"output": {"voice": "nova"}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
        (
            {"type": "realtime", "audio": {"output": {"speed": 2}}},
            "decimal_above_max_value",
            "session.audio.output.speed",
        ),
        (
            {"type": "realtime", "audio": {"output": {"speed": "fast"}}},
            "invalid_type",
            "session.audio.output.speed",
        ),
        (
            {
                "type": "realtime",
                "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}},
            },
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            {"type": "realtime", "audio": {"input": {"turn_detection": {"threshold": 0.2}}}},
            "missing_required_parameter",
            "session.audio.input.turn_detection.type",
        ),
        (
            {
                "type": "realtime",
                "audio": {
                    "input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 10}}
                },
            },
            "integer_below_min_value",
            "session.audio.input.turn_detection.idle_timeout_ms",
        ),
        (
            {"type": "realtime", "tools": [CLOCK, {"type": "function", "name": "a b"}]},
            "invalid_value",
            "session.tools[1].name",
        ),
        (
            {"type": "realtime", "tools": [{"type": "function"}]},
            "missing_required_parameter",
            "session.tools[0].name",
        ),
        ({"type": "realtime", "max_output_tokens": 5000}, "integer_above_max_value",
         "session.max_output_tokens"),
        ({"type": "realtime", "model": "gpt-4o"}, "invalid_value", "session.model"),
        ({"type": "realtime", "tool_choice": "always"}, "invalid_value", "session.tool_choice"),
        (
            {"type": "realtime", "tools": [{"type": "mcp", "server_label": "docs"}]},
            "missing_required_parameter",
            "session.tools[0].server_url",
        ),
        (
            {"type": "realtime",
             "audio": {"input": {"transcription": {"model": "gpt-live-transcribe"}}}},
            "invalid_value",
            "session.audio.input.transcription.model",
        ),
        (
            {"type": "realtime",
             "audio": {"input": {"transcription": {"model": "whisper-1", "keywords": ["a"]}}}},
            "invalid_value",
            "session.audio.input.transcription.keywords",
        ),
        (
            {"type": "realtime",
             "audio": {"input": {"transcription": {"model": "gpt-transcribe", "delay": "low"}}}},
            "invalid_value",
            "session.audio.input.transcription.delay",
        ),
        (
            {"type": "realtime",
             "audio": {"input": {"transcription": {"model": "gpt-realtime-whisper", "prompt": "a"},
                                 "turn_detection": None}}},
            "invalid_value",
            "session.audio.input.transcription.prompt",
        ),
        ("realtime", "invalid_type", "session"),
    ],
)  # fmt: skip
def test_an_update_that_is_wrong_anywhere_changes_nothing(talk, session, code, param):
    before = talk.settings()
    if isinstance(session, dict) and "type" in session:
        session = {"instructions": "Not to be taken.", **session}

    error = error_of(talk.send("session.update", session=session, event_id="mine"))

    assert (error["code"], error["param"], error["event_id"]) == (code, param, "mine")
    assert error["type"] == "invalid_request_error"
    assert talk.settings() == before


def test_reasoning_is_refused_by_models_without_it():
    talk = Talk()
    talk.session = ServerSession("gpt-realtime-mini")

    error = error_of(talk.configure(reasoning={"effort": "low"}))
    response = {"reasoning": {"effort": "low"}}
    own = error_of(talk.send("response.create", response=response))

    assert error["param"] == "session.reasoning"
    assert own["param"] == "response.reasoning"


def test_a_streaming_transcription_is_for_sessions_without_vad(talk):
    (event,) = talk.configure(
        audio={"input": {"transcription": {"model": "gpt-live-transcribe"}, "turn_detection": None}}
    )
    error = error_of(talk.configure(audio={"input": {"turn_detection": {"type": "server_vad"}}}))

    assert event["type"] == "session.updated"
    assert error["param"] == "session.audio.input.transcription.model"


def test_the_speed_changes_between_answers_only(talk):
    talk.type("hello")
    talk.send("response.create")

    error = error_of(talk.configure(audio={"output": {"speed": 1.5}}))
    same = talk.configure(audio={"output": {"speed": 1.0}})
    talk.respond()
    later = talk.configure(audio={"output": {"speed": 1.5}})

    assert error["param"] == "session.audio.output.speed"
    assert kinds(same) == kinds(later) == ["session.updated"]


def test_the_voice_is_fixed_by_the_first_sound(talk):
    talk.configure(audio={"output": {"voice": "marin"}})
    talk.type("hello")
    talk.send("response.create")
    talk.respond()

    same = talk.configure(audio={"output": {"voice": "marin", "speed": 1.2}})
    error = error_of(talk.configure(audio={"output": {"voice": "cedar"}}))

    assert kinds(same) == ["session.updated"]
    assert error["code"] == "cannot_update_voice"


# Frames that are no events.


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("no json", "invalid_json"),
        (b'{"type": "response.create"}', "invalid_json"),
        ("[1, 2]", "invalid_type"),
        ("null", "invalid_type"),
        ("[" * 100_000, "invalid_json"),
        ("{}", "missing_required_parameter"),
        ('{"type": 7}', "invalid_type"),
        ('{"type": "response.cancelled"}', "invalid_value"),
        ('{"type": "transcription_session.update"}', "invalid_value"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter"),
        ('{"type": "input_audio_buffer.append", "audio": 7}', "invalid_type"),
        ('{"type": "input_audio_buffer.append", "audio": "not base64!"}', "invalid_value"),
        ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "invalid_value"),
        ('{"type": "input_audio_buffer.commit", "extra": 1}', "unknown_parameter"),
        ('{"type": "output_audio_buffer.clear"}', "invalid_value"),
    ],
)
def test_a_bad_frame_is_an_error_and_the_session_lives(talk, frame, code):
    error = error_of(talk.send_raw(frame))

    assert error["code"] == code
    assert kinds(talk.type("hello")) == ["conversation.item.added", "conversation.item.done"]


def test_an_error_names_the_event_that_it_is_about(talk):
    error = error_of(talk.send("response.create", event_id="e-7", response={"voice": "alloy"}))

    assert (error["event_id"], error["param"]) == ("e-7", "response.voice")


def test_event_ids_are_unique_and_ids_are_short(talk):
    talk.append(TURN * 2)
    talk.respond()

    ids = [event["event_id"] for event in talk.events]
    named = [event["item_id"] for event in talk.events if "item_id" in event]
    assert max(Counter(ids).values()) == 1
    assert max(len(each) for each in ids + named) <= 32


# Items.


def test_an_item_is_added_and_done_with_the_item_before_it(talk):
    first = talk.type("one")
    second = talk.type("two")

    assert kinds(first) == ["conversation.item.added", "conversation.item.done"]
    assert first[0]["previous_item_id"] is None
    assert second[1]["previous_item_id"] == first[0]["item"]["id"]
    assert first[0]["item"] == {
        "id": first[0]["item"]["id"],
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "one"}],
    }


def test_items_keep_their_own_ids_and_go_where_they_are_sent(talk):
    talk.type("one", id="a")
    talk.type("three", id="c")

    middle = talk.send(
        "conversation.item.create", previous_item_id="a",
        item={"id": "b", "type": "message", "role": "system",
              "content": [{"type": "input_text", "text": "two"}]},
    )  # fmt: skip
    first = talk.send(
        "conversation.item.create", previous_item_id="root",
        item={"id": "z", "type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"},
    )  # fmt: skip

    assert middle[0]["previous_item_id"] == "a"
    assert first[0]["previous_item_id"] is None
    assert talk.type("four")[0]["previous_item_id"] == "c"


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        ({"type": "message", "role": "user"}, "missing_required_parameter", "item.content"),
        ({"type": "message", "content": []}, "missing_required_parameter", "item.role"),
        ({"role": "user", "content": []}, "missing_required_parameter", "item.type"),
        ({"type": "massage"}, "invalid_value", "item.type"),
        ({"type": "function_call", "name": "f"}, "missing_required_parameter", "item.arguments"),
        (
            {"type": "message", "role": "user", "content": [{"type": "text", "text": "beta"}]},
            "invalid_value",
            "item.content[0].type",
        ),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_text"}]},
            "missing_required_parameter",
            "item.content[0].text",
        ),
        (
            {"type": "message", "role": "assistant",
             "content": [{"type": "output_audio", "transcript": "x"}]},
            "missing_required_parameter",
            "item.content[0].text",
        ),
        (
            {"type": "message", "role": "system", "content": [{"type": "output_text", "text": ""}]},
            "invalid_value",
            "item.content[0].type",
        ),
        (
            {"type": "message", "role": "user", "id": "x" * 33, "content": []},
            "string_above_max_length",
            "item.id",
        ),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "?"}]},
            "invalid_value",
            "item.content[0].audio",
        ),
        ({"type": "function_call_output", "call_id": "1", "output": {}}, "invalid_type",
         "item.output"),
        ({"type": "function_call_output", "call_id": "none", "output": ""},
         "invalid_tool_call_id", None),
    ],
)  # fmt: skip
def test_an_item_that_is_wrong_is_refused(talk, item, code, param):
    error = error_of(talk.send("conversation.item.create", item=item))

    assert (error["code"], error["param"]) == (code, param)


def test_an_id_exists_once(talk):
    talk.type("one", id="same")

    assert error_of(talk.type("two", id="same"))["code"] == "item_create_duplicate_item_id"


def test_an_item_after_one_that_is_not_there_is_refused(talk):
    item = {"type": "message", "role": "user", "content": []}

    error = error_of(talk.send("conversation.item.create", item=item, previous_item_id="gone"))

    assert error["code"] == "item_create_invalid_previous_item_id"


def test_a_deleted_item_is_gone(talk):
    talk.type("one", id="a")

    (event,) = talk.send("conversation.item.delete", item_id="a")
    error = error_of(talk.send("conversation.item.retrieve", item_id="a"))

    assert (event["type"], event["item_id"]) == ("conversation.item.deleted", "a")
    assert error["code"] == "item_retrieve_invalid_item_id"


def test_deleting_what_is_not_there_is_refused(talk):
    error = error_of(talk.send("conversation.item.delete", item_id="a"))

    assert error["code"] == "item_delete_invalid_item_id"


def test_a_retrieved_item_has_its_audio(talk):
    talk.configure(audio={"input": {"turn_detection": None}})
    talk.append(TURN)
    item_id = talk.send("input_audio_buffer.commit")[0]["item_id"]

    (event,) = talk.send("conversation.item.retrieve", item_id=item_id)

    assert base64.b64decode(event["item"]["content"][0]["audio"]) == TURN


# Speech and turns.


def test_a_spoken_turn_is_announced_committed_and_answered(talk):
    events = talk.append(TURN)

    item_id = events[0]["item_id"]
    assert kinds(events) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    assert [event.get("item_id") for event in events[:3]] == [item_id] * 3
    assert events[3]["item"]["id"] == item_id
    assert events[3]["item"]["content"] == [{"type": "input_audio", "transcript": None}]


def test_positions_count_all_the_audio_of_the_session(talk):
    talk.append(silence(10_000))

    start, stop = talk.append(TURN)[:2]

    assert abs(start["audio_start_ms"] - 10_200) < 100
    assert abs(stop["audio_end_ms"] - 11_500) < 100


def test_the_turn_has_the_audio_between_its_positions(talk):
    sound = silence(3_000) + TURN
    start, stop = talk.append(sound)[:2]

    (event,) = talk.send("conversation.item.retrieve", item_id=start["item_id"])

    wanted = sound[start["audio_start_ms"] * MS : stop["audio_end_ms"] * MS]
    assert base64.b64decode(event["item"]["content"][0]["audio"]) == wanted


def test_two_turns_in_one_append_are_two_turns(talk):
    events = talk.append(TURN * 2, cut=10**9)

    committed = only(events, "input_audio_buffer.committed")
    assert len(committed) == 2
    assert committed[1]["previous_item_id"] == committed[0]["item_id"]
    assert only(events, "response.done")[0]["response"]["status"] == "cancelled"


def test_without_create_response_a_turn_is_not_answered(talk):
    talk.configure(
        audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}}
    )

    assert "response.created" not in kinds(talk.append(TURN))


def test_push_to_talk_commits_what_was_appended(talk):
    talk.configure(audio={"input": {"turn_detection": None}})
    appended = talk.append(TURN)

    events = talk.send("input_audio_buffer.commit")

    assert appended == []
    assert kinds(events) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert talk.work[0].pcm == TURN


@pytest.mark.parametrize(("ms", "refused"), [(0, True), (99, True), (100, False)])
def test_a_commit_needs_100_ms(talk, ms, refused):
    talk.configure(audio={"input": {"turn_detection": None}})
    talk.append(silence(ms))

    events = talk.send("input_audio_buffer.commit")

    if refused:
        assert error_of(events)["code"] == "input_audio_buffer_commit_empty"
        assert f"only has {ms}.00ms" in events[0]["error"]["message"]
    else:
        assert events[0]["type"] == "input_audio_buffer.committed"


def test_clear_drops_the_audio_and_the_speech_in_it(talk):
    talk.append(TURN[: 1000 * MS])

    events = talk.send("input_audio_buffer.clear")

    assert kinds(events) == ["input_audio_buffer.cleared"]
    assert talk.append(silence(1000)) == []


def test_a_commit_while_somebody_speaks_takes_the_announced_id(talk):
    (started,) = talk.append(TURN[: 1000 * MS])

    events = talk.send("input_audio_buffer.commit")

    assert events[0]["item_id"] == started["item_id"]
    assert talk.append(silence(1000)) == []


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_g711_input_counts_the_same_time(talk, kind):
    talk.configure(
        audio={"input": {"format": {"type": kind}, "turn_detection": None}, "output": {}}
    )
    talk.append(bytes([0xD5]) * 8 * 500, cut=160)

    talk.send("input_audio_buffer.commit")

    assert abs(len(talk.work[0].pcm) / MS - 500) < 5


def test_a_silent_user_is_asked_after_the_idle_timeout(talk):
    talk.configure(
        audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}}
    )
    talk.append(TURN)
    talk.respond()

    quiet = talk.append(silence(5300))
    events = talk.append(silence(200))

    assert quiet == []
    assert kinds(events)[:2] == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
    ]
    assert events[0]["item_id"] == events[1]["item_id"]
    assert "response.created" in kinds(events)


# Transcription.


def test_what_was_heard_is_transcribed_if_asked(talk):
    talk.configure(audio={"input": {"transcription": {"model": "gpt-transcribe"}}})
    item_id = talk.append(TURN)[0]["item_id"]
    talk.heard = "what time is it"

    events = talk.listen()

    kind = "conversation.item.input_audio_transcription"
    deltas = only(events, f"{kind}.delta")
    assert "".join(event["delta"] for event in deltas) == "what time is it"
    assert all(event["obfuscation"] for event in deltas)
    (completed,) = only(events, f"{kind}.completed")
    assert completed["item_id"] == item_id
    assert completed["transcript"] == "what time is it"
    assert completed["usage"]["type"] == "tokens"


def test_whisper_has_one_delta_and_is_billed_by_time(talk):
    talk.configure(audio={"input": {"transcription": {"model": "whisper-1"}}})
    talk.append(TURN)
    talk.heard = "what time is it"

    delta, completed = talk.listen()

    assert delta["delta"] == completed["transcript"] == "what time is it"
    assert completed["usage"] == {"type": "duration", "seconds": 2}


def test_without_transcription_nothing_is_transcribed(talk):
    talk.append(TURN)

    assert talk.listen() == []


def test_without_a_recogniser_transcription_fails_and_the_answer_names_the_length(talk):
    talk.configure(audio={"input": {"transcription": {"model": "gpt-transcribe"}}})
    talk.append(TURN)
    talk.heard = None

    (failed,) = talk.listen()
    done = only(talk.respond(), "response.done")[0]["response"]

    assert failed["type"] == "conversation.item.input_audio_transcription.failed"
    assert failed["error"]["code"] == "transcription_unavailable"
    assert done["output"][0]["content"][0]["transcript"] == "I heard 0.8 seconds of speech."


def test_a_transcription_session_never_responds():
    talk = Talk(transcribes=True)

    created = talk.events[0]["session"]
    events = talk.append(TURN)
    error = error_of(talk.send("response.create"))

    assert created["type"] == "transcription"
    assert kinds(events)[-1] == "conversation.item.done"
    assert "transcription session" in error["message"]


# Responses.


def test_an_answer_has_the_events_of_the_service_in_their_order(talk):
    talk.type("hello")
    talk.send("response.create")
    before = len(talk.events)

    talk.respond()

    assert kinds(talk.events[before - 1 :]) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]


def test_an_answer_in_text_has_no_audio(talk):
    talk.configure(output_modalities=["text"])
    talk.type("what is your name")
    talk.send("response.create")

    events = talk.respond()

    assert not any("audio" in event["type"] for event in events)
    assert "".join(e["delta"] for e in only(events, "response.output_text.delta")) == (
        "My name is Sandbox."
    )
    assert only(events, "response.content_part.added")[0]["part"] == {"type": "text", "text": ""}
    assert only(events, "response.done")[0]["response"]["output_modalities"] == ["text"]


def test_a_function_call_is_answered_aloud(talk):
    talk.configure(tools=[CLOCK])
    talk.type("what time is it")
    talk.send("response.create")

    events = talk.respond()
    done = only(events, "response.function_call_arguments.done")[0]
    talk.send(
        "conversation.item.create",
        item={"type": "function_call_output", "call_id": done["call_id"], "output": "14:05:09"},
    )
    talk.send("response.create")
    answer = only(talk.respond(), "response.done")[0]["response"]

    assert kinds(events) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    assert (done["name"], done["arguments"]) == ("get_current_time", "{}")
    assert answer["output"][0]["content"][0]["transcript"] == "It is 14:05 and 9 seconds."


CALLS = 'call get_current_time {"zone": "Europe/Berlin"}\ncall get_current_time {}'


def test_several_calls_come_in_one_response(talk):
    talk.configure(tools=[CLOCK])
    talk.type(CALLS)
    talk.send("response.create")

    events = talk.respond()
    calls = only(events, "response.done")[0]["response"]["output"]
    for call in calls:
        item = {"type": "function_call_output", "call_id": call["call_id"], "output": "14:05"}
        talk.send("conversation.item.create", item=item)
    talk.send("response.create")
    answer = only(talk.respond(), "response.done")[0]["response"]

    assert [call["arguments"] for call in calls] == ['{"zone": "Europe/Berlin"}', "{}"]
    done = only(events, "response.function_call_arguments.done")
    assert [event["output_index"] for event in done] == [0, 1]
    deltas = only(events, "response.function_call_arguments.delta")
    first = "".join(each["delta"] for each in deltas if each["output_index"] == 0)
    assert len(deltas) > 2
    assert first == done[0]["arguments"]
    assert answer["output"][0]["content"][0]["transcript"] == "It is 14:05. It is 14:05."


def test_without_parallel_calls_there_is_one(talk):
    talk.configure(tools=[CLOCK], parallel_tool_calls=False)
    talk.type(CALLS)
    talk.send("response.create")

    (done,) = only(talk.respond(), "response.done")

    assert len(done["response"]["output"]) == 1


PICTURE = "data:image/png;base64,iVBORw0KGgo="


def picture(url):
    content = [{"type": "input_image", "image_url": url}]
    return {"type": "message", "role": "user", "content": content}


def test_a_picture_is_seen_and_counted(talk):
    (added, _) = talk.send("conversation.item.create", item=picture(PICTURE))
    talk.send("response.create")
    (done,) = only(talk.respond(), "response.done")

    assert added["item"]["content"][0]["detail"] == "auto"
    assert done["response"]["output"][0]["content"][0]["transcript"] == "I see a picture."
    assert done["response"]["usage"]["input_token_details"]["image_tokens"] > 0


@pytest.mark.parametrize("url", ["https://example.com/a.png", "data:image/gif;base64,R0lGODlh", ""])
def test_a_picture_is_png_or_jpeg_and_comes_with_its_bytes(talk, url):
    error = error_of(talk.send("conversation.item.create", item=picture(url)))

    assert (error["code"], error["param"]) == ("invalid_value", "item.content[0].image_url")


def test_the_next_answer_finds_its_context_in_the_cache(talk):
    talk.type("tell me a story " * 40)
    talk.send("response.create")
    first = only(talk.respond(), "response.done")[0]["response"]["usage"]
    talk.send("response.create")
    second = only(talk.respond(), "response.done")[0]["response"]["usage"]

    assert first["input_token_details"]["cached_tokens"] == 0
    assert second["input_token_details"]["cached_tokens"] >= 128
    assert second["input_token_details"]["cached_tokens"] <= first["input_tokens"]


def test_a_response_that_failed_says_why(talk):
    talk.type("hello")
    talk.send("response.create")

    assert talk.session.fail("rate_limit_exceeded")
    events = talk.session.take_events()

    done = only(events, "response.done")[0]["response"]
    assert done["status"] == "failed"
    assert done["status_details"]["error"]["code"] == "rate_limit_exceeded"
    assert not talk.session.fail("again")


def test_usage_has_its_details(talk):
    talk.append(TURN)
    (done,) = only(talk.respond(), "response.done")

    usage = done["response"]["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_token_details"]["audio_tokens"] >= 10
    assert usage["output_token_details"]["audio_tokens"] == 8


def test_only_one_response_at_a_time(talk):
    talk.send("response.create")

    error = error_of(talk.send("response.create", event_id="second"))

    assert error["code"] == "conversation_already_has_active_response"
    assert error["event_id"] == "second"


def test_responses_out_of_band_run_beside_it(talk):
    talk.type("hello")
    talk.send("response.create")
    (created,) = talk.send(
        "response.create",
        response={
            "conversation": "none",
            "metadata": {"topic": "aside"},
            "output_modalities": ["text"],
            "instructions": "Say: aside",
        },
    )
    events = talk.respond()

    assert created["response"]["conversation_id"] is None
    assert created["response"]["metadata"] == {"topic": "aside"}
    done = {event["response"]["id"]: event["response"] for event in only(events, "response.done")}
    assert len(done) == 2
    aside = done[created["response"]["id"]]
    assert aside["output"][0]["content"][0]["text"] == "aside"
    assert len(only(events, "conversation.item.added")) == 1


def test_a_response_may_have_its_own_input(talk):
    talk.type("hello", id="there")
    name = {"type": "message", "role": "user",
            "content": [{"type": "input_text", "text": "what is your name"}]}  # fmt: skip

    talk.send(
        "response.create",
        response={
            "conversation": "none",
            "input": [{"type": "item_reference", "id": "there"}, name],
        },
    )
    (done,) = only(talk.respond(), "response.done")

    assert done["response"]["output"][0]["content"][0]["transcript"] == "My name is Sandbox."


def test_a_reference_to_an_item_that_is_not_there_is_refused(talk):
    error = error_of(
        talk.send("response.create", response={"input": [{"type": "item_reference", "id": "x"}]})
    )

    assert error["param"] == "response.input[0].id"


@pytest.mark.parametrize(
    "metadata", [{"k": 1}, {"k" * 65: "v"}, {"k": "v" * 513}, {str(i): "v" for i in range(17)}]
)
def test_metadata_has_its_limits(talk, metadata):
    error = error_of(talk.send("response.create", response={"metadata": metadata}))

    assert error["param"].startswith("response.metadata")


def test_cancel_closes_with_exactly_what_was_said(talk):
    talk.type("tell me a story")
    talk.send("response.create")
    response_id, _ = talk.speak()

    events = talk.send("response.cancel")

    assert kinds(events) == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    deltas = only(talk.events, "response.output_audio_transcript.delta")
    assert events[1]["transcript"] == "".join(event["delta"] for event in deltas) == "Once"
    assert events[4]["item"]["status"] == "incomplete"
    response = events[5]["response"]
    assert (response["status"], response["status_details"]["reason"]) == (
        "cancelled",
        "client_cancelled",
    )
    assert not talk.session.speak(response_id, ["more"], bytes(960))
    assert talk.session.take_events() == []


def test_a_response_can_be_cancelled_before_it_says_anything(talk):
    talk.send("response.create")

    events = talk.send("response.cancel")
    _, speech = talk.think()

    assert kinds(events) == ["response.done", "rate_limits.updated"]
    assert events[0]["response"]["output"] == []
    assert speech is None


def test_cancel_may_name_the_response(talk):
    created = talk.send("response.create", response={"conversation": "none"})[0]

    events = talk.send("response.cancel", response_id=created["response"]["id"])

    assert events[0]["response"]["id"] == created["response"]["id"]


@pytest.mark.parametrize("fields", [{}, {"response_id": "resp_gone"}])
def test_cancel_without_a_response_is_refused(talk, fields):
    error = error_of(talk.send("response.cancel", **fields))

    assert error["code"] == "response_cancel_not_active"


def test_speech_interrupts_the_answer(talk):
    talk.append(TURN)
    talk.listen()
    talk.speak()

    events = talk.append(TURN[: 1000 * MS])

    assert kinds(events)[0] == "input_audio_buffer.speech_started"
    (done,) = only(events, "response.done")
    assert done["response"]["status"] == "cancelled"
    assert done["response"]["status_details"]["reason"] == "turn_detected"


def test_without_interrupt_response_the_answer_goes_on_and_the_next_one_fails(talk):
    talk.configure(
        audio={"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}
    )
    talk.append(TURN)
    talk.listen()
    response_id, _ = talk.speak()

    events = talk.append(TURN)

    assert only(events, "response.done") == []
    (error,) = only(events, "error")
    assert error["error"]["code"] == "conversation_already_has_active_response"
    assert talk.session.speak(response_id, [" more"], bytes(960))


def test_an_answer_ends_at_its_token_limit(talk):
    talk.type("tell me a story")
    talk.send("response.create", response={"max_output_tokens": 8})
    response_id, _ = talk.speak(seconds=0.2)

    wanted = talk.session.speak(response_id, [" upon a time"], bytes(200 * MS))

    events = talk.session.take_events()
    assert not wanted
    (done,) = only(events, "response.done")
    assert done["response"]["status"] == "incomplete"
    assert done["response"]["status_details"]["reason"] == "max_output_tokens"


# Truncation.


@pytest.fixture
def interrupted(talk):
    """A talk in which 400 ms of an answer were spoken; and the item of the answer."""
    talk.type("tell me a story", id="asked")
    talk.send("response.create")
    talk.speak(seconds=0.4)
    talk.send("response.cancel")
    return talk, only(talk.events, "response.output_item.added")[-1]["item"]["id"]


def truncate(talk, item_id, end_ms, index=0):
    return talk.send(
        "conversation.item.truncate", item_id=item_id, content_index=index, audio_end_ms=end_ms
    )


@pytest.mark.parametrize("end_ms", [0, 250, 400])
def test_truncate_shortens_the_audio_and_removes_the_transcript(interrupted, end_ms):
    talk, item_id = interrupted

    (event,) = truncate(talk, item_id, end_ms)

    assert event["type"] == "conversation.item.truncated"
    assert (event["item_id"], event["audio_end_ms"]) == (item_id, end_ms)
    part = talk.send("conversation.item.retrieve", item_id=item_id)[0]["item"]["content"][0]
    assert len(base64.b64decode(part["audio"])) == end_ms * MS
    assert part["transcript"] is None


def test_truncate_past_the_audio_is_refused(interrupted):
    talk, item_id = interrupted

    error = error_of(truncate(talk, item_id, 401))

    assert error["message"] == "Audio content of 400ms is already shorter than 401ms"


@pytest.mark.parametrize(
    ("item_id", "code"),
    [("gone", "item_truncate_invalid_item_id"), ("asked", "unsupported_content_type")],
)
def test_only_audio_of_the_assistant_can_be_truncated(interrupted, item_id, code):
    talk, _ = interrupted

    assert error_of(truncate(talk, item_id, 0))["code"] == code


def test_an_item_without_audio_yet_can_not_be_truncated(talk):
    talk.type("hello")
    talk.send("response.create")
    talk.think()
    item_id = only(talk.events, "response.output_item.added")[0]["item"]["id"]

    assert error_of(truncate(talk, item_id, 0))["code"] == "unsupported_content_type"


def test_what_comes_after_a_cut_does_not_grow_the_item(talk):
    talk.type("tell me a story")
    talk.send("response.create")
    response_id, _ = talk.speak(seconds=0.4)
    item_id = only(talk.events, "response.output_item.added")[0]["item"]["id"]

    truncate(talk, item_id, 100)
    talk.session.speak(response_id, [" upon"], bytes(200 * MS))

    error = error_of([talk.session.take_events(), truncate(talk, item_id, 101)][1])
    assert "already shorter" in error["message"]


# Memory.


def test_a_replayed_conversation_is_remembered(talk):
    talk.type("tell me a story")
    talk.type("Once upon a time.", role="assistant")
    talk.append(TURN)
    talk.heard = "what did i say"

    (done,) = only(talk.respond(), "response.done")

    assert done["response"]["output"][0]["content"][0]["transcript"] == "You said: tell me a story"


def test_old_audio_is_forgotten_before_it_fills_the_memory(talk):
    talk.configure(audio={"input": {"turn_detection": None}})
    ids = []
    for _ in range(14):
        talk.append(silence(60_000), cut=10**9)
        ids.append(talk.send("input_audio_buffer.commit")[0]["item_id"])

    oldest = talk.send("conversation.item.retrieve", item_id=ids[0])[0]["item"]
    newest = talk.send("conversation.item.retrieve", item_id=ids[-1])[0]["item"]

    assert oldest["content"][0]["audio"] == ""
    assert len(newest["content"][0]["audio"]) == 60_000 * MS // 3 * 4
