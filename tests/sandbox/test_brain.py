"""The answers of the sandbox."""

from __future__ import annotations

import json

import pytest

from actors.realtime.core.restore import GO_ON
from actors.tools.builtin import builtin_tools
from rtvoice.sandbox.brain import NOT_UNDERSTOOD, SpokenAnswer, ToolCalls, think
from rtvoice.sandbox.conversation import Part, Recognition, ServerItem
from rtvoice.sandbox.phrases import PHRASES

VOLUME = "adjust_volume"
TOOLS = [
    {"type": "function", "name": name}
    for name in (
        "get_current_time",
        "adjust_volume",
        "change_assistant_response_speed",
        "stop_assistant_run",
    )
]


def user(text):
    return ServerItem("u", "message", role="user", content=[Part("input_text", text=text)])


def assistant(text="Yes."):
    return ServerItem("a", "message", role="assistant", content=[Part("output_text", text=text)])


def speech(text, seconds=1.2):
    part = Part("input_audio", pcm=bytes(48))
    part.heard = Recognition(seconds, text)
    return ServerItem("s", "message", role="user", content=[part])


def call(name, arguments="{}"):
    return ServerItem("c", "function_call", name=name, arguments=arguments, call_id="call")


def output(text):
    return ServerItem("o", "function_call_output", call_id="call", output=text)


def called(answer):
    assert isinstance(answer, ToolCalls)
    return [(each.name, json.loads(each.arguments)) for each in answer.calls]


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.words)
def test_every_phrase_has_an_answer_without_tools(phrase):
    answer = think([user(phrase.words)])

    assert isinstance(answer, SpokenAnswer)
    assert answer.text
    assert not answer.text.startswith("You said: ")


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("what time is it", "get_current_time", {}),
        ("what is the time", "get_current_time", {}),
        ("set the volume to fifty percent", "adjust_volume", {"level": 0.5}),
        ("set the volume to one hundred percent", "adjust_volume", {"level": 1.0}),
        ("louder", "adjust_volume", {"level": 0.7}),
        ("quieter", "adjust_volume", {"level": 0.3}),
        ("speak faster", "change_assistant_response_speed", {"instructions": "faster"}),
        ("speak slower", "change_assistant_response_speed", {"instructions": "slower"}),
        ("stop", "stop_assistant_run", {}),
    ],
)
def test_an_intent_calls_the_tool_of_the_session(text, name, arguments):
    assert called(think([user(text)], TOOLS)) == [(name, arguments)]


def test_without_the_tool_it_says_so_and_guesses_nothing():
    answer = think([user("what time is it")], [{"type": "function", "name": "get_weather"}])

    assert answer == SpokenAnswer("I have no clock: this session has no tool get_current_time.")


@pytest.mark.parametrize("word", ["louder", "quieter"])
def test_a_tool_that_knows_the_volume_is_told_which_way(word):
    tool = next(one for one in builtin_tools(lambda: 1.0, lambda: 1.0) if one.name == VOLUME)
    tools = [{"type": "function", "name": VOLUME, "parameters": tool.schema}]
    history = [call(VOLUME, '{"level": 0.7}'), output("ok"), assistant()]

    assert called(think([*history, user(word)], tools)) == [(VOLUME, {"level": word})]


def test_louder_goes_on_from_the_last_level():
    history = [user("x"), call("adjust_volume", '{"level": 0.7}'), output("ok"), assistant()]

    assert called(think([*history, user("louder")], TOOLS)) == [("adjust_volume", {"level": 0.9})]


def test_the_volume_stays_between_0_and_1():
    history = [call("adjust_volume", '{"level": 0.1}'), output("ok"), assistant()]

    assert called(think([*history, user("quieter")], TOOLS)) == [("adjust_volume", {"level": 0.0})]


@pytest.mark.parametrize(
    ("name", "arguments", "result", "sentence"),
    [
        ("get_current_time", "{}", "14:05:09", "It is 14:05 and 9 seconds."),
        ("get_current_time", "{}", '"14:05:01"', "It is 14:05 and 1 second."),
        ("get_current_time", "{}", "2026-11-22T14:05:00+01:00", "It is 14:05 and 0 seconds."),
        ("get_current_time", "{}", "no idea", "The answer of get_current_time is no idea."),
        ("adjust_volume", '{"level": 0.5}', "done", "The volume is 50 percent now."),
        (
            "adjust_volume",
            '{"level": "louder"}',
            "The volume is 0.7 now.",
            "The volume is 70 percent now.",
        ),
        ("adjust_volume", '{"level": 2}', "Error: too loud", None),
        (
            "change_assistant_response_speed",
            '{"instructions": "slower"}',
            "",
            "I speak slower now.",
        ),
        ("stop_assistant_run", "{}", "The conversation ends.", "Goodbye."),
        ("get_weather", "{}", "foggy", "The answer of get_weather is foggy."),
        ("get_weather", "{}", '{"sky": "fog", "t": [1, 2]}', None),
    ],
)
def test_the_output_of_a_tool_is_spoken(name, arguments, result, sentence):
    answer = think([user("x"), call(name, arguments), output(result)], TOOLS)

    assert isinstance(answer, SpokenAnswer)
    if sentence is None:
        assert answer.text.startswith(f"The answer of {name} is ")
    else:
        assert answer.text == sentence


def test_json_is_read_as_words():
    answer = think([call("f"), output('{"sky": "fog", "t": [1, 2]}')])

    assert answer == SpokenAnswer("The answer of f is sky fog, t 1, 2.")


def test_two_outputs_are_spoken_in_one_answer():
    first = ServerItem("c1", "function_call", name="f", arguments="{}", call_id="1")
    second = ServerItem("c2", "function_call", name="g", arguments="{}", call_id="2")
    outputs = [
        ServerItem("o1", "function_call_output", call_id="1", output="a"),
        ServerItem("o2", "function_call_output", call_id="2", output="b"),
    ]

    answer = think([user("x"), first, second, *outputs])

    assert answer == SpokenAnswer("The answer of f is a. The answer of g is b.")


def test_a_call_without_output_is_waited_for():
    assert think([user("x"), call("f")]) == SpokenAnswer("I am still waiting for the answer of f.")


def test_what_did_i_say_remembers_the_turn_before():
    history = [user("hello"), assistant(), speech("tell me a story"), assistant()]

    assert think([*history, speech("what did i say")]) == SpokenAnswer("You said: tell me a story")


def test_what_did_i_say_as_the_first_words():
    assert think([user("what did I say?")]) == SpokenAnswer("You have not said anything before.")


def test_an_unanswered_text_of_a_replayed_conversation_is_answered():
    history = [user("hello"), assistant(), user("what is your name")]

    assert think(history) == SpokenAnswer("My name is Sandbox.")


def test_unknown_text_is_repeated():
    assert think([user("good evening, dear")]) == SpokenAnswer("You said: good evening, dear")


@pytest.mark.parametrize(
    ("instructions", "words"),
    [
        ("Say: Hello there", "Hello there"),
        ('say exactly "Welcome back."', "Welcome back."),
        ("Say exactly: one, two.", "one, two."),
        ('Say to the user now: "One moment." Call no tool for that.', "One moment."),
    ],
)
def test_instructions_to_say_something_are_followed(instructions, words):
    assert think([user("hello")], TOOLS, instructions=instructions) == SpokenAnswer(words)


@pytest.mark.parametrize(
    "instructions", ["Say goodbye in one short sentence.", "Confirm in a few words.", None]
)
def test_other_instructions_do_not_change_the_answer(instructions):
    history = [user("stop"), call("stop_assistant_run"), output("done")]

    assert think(history, TOOLS, instructions=instructions) == SpokenAnswer("Goodbye.")


def test_without_anything_to_answer_it_greets():
    answer = think([], instructions="Greet the user.")

    assert isinstance(answer, SpokenAnswer)
    assert answer.text.startswith("Hello.")


def test_a_system_message_to_say_something_is_followed():
    system = ServerItem(
        "y", "message", role="system", content=[Part("input_text", text="Say: Tea.")]
    )

    assert think([user("hello"), assistant(), system]) == SpokenAnswer("Tea.")


def test_typed_calls_reach_any_tool():
    text = 'call get_weather {"city": "London"}\ncall ping'

    answer = think([user(text)], [{"name": "get_weather"}, {"name": "ping"}])

    assert called(answer) == [("get_weather", {"city": "London"}), ("ping", {})]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("call nothing {}", "There is no tool nothing. The tools are: ping."),
        ("call ping {not json", "The arguments of ping are not JSON"),
    ],
)
def test_a_typed_call_that_can_not_be_made_says_why(text, part):
    answer = think([user(text)], [{"name": "ping"}])

    assert isinstance(answer, SpokenAnswer)
    assert part in answer.text


def test_speech_that_was_not_understood():
    assert think([speech("")]) == SpokenAnswer(NOT_UNDERSTOOD)


def test_speech_that_nobody_could_recognise_is_measured():
    assert think([speech(None)]) == SpokenAnswer("I heard 1.2 seconds of speech.")


def test_silence_is_asked_about():
    assert think([speech("", 0.0)]) == SpokenAnswer("Are you still there?")


def test_tool_choice_none_calls_nothing():
    assert isinstance(think([user("what time is it")], TOOLS, "none"), SpokenAnswer)


def test_tool_choice_required_always_calls():
    assert called(think([user("hello")], TOOLS, "required")) == [("get_current_time", {})]
    assert called(think([user("stop")], TOOLS, "required")) == [("stop_assistant_run", {})]


def test_tool_choice_of_one_function_calls_that_one():
    choice = {"type": "function", "name": "adjust_volume"}

    assert called(think([user("set the volume to 20%")], TOOLS, choice)) == [
        ("adjust_volume", {"level": 0.2})
    ]


def test_the_same_conversation_gives_the_same_answer():
    history = [user("hello"), assistant(), speech("louder")]

    assert think(history, TOOLS) == think(history, TOOLS)


def test_an_answer_that_was_cut_off_goes_on_when_asked_to():
    asked = [user("what time is it"), call("get_current_time"), output("03:42:24")]
    whole = think(asked)
    assert isinstance(whole, SpokenAnswer)

    rest = think([*asked, assistant("It is")], instructions=f"You are kind.\n{GO_ON}")

    assert isinstance(rest, SpokenAnswer)
    assert f"It is {rest.text}" == whole.text


def test_an_answer_that_was_whole_is_not_followed_by_a_greeting():
    whole = think([user("what is your name")])
    assert isinstance(whole, SpokenAnswer)

    rest = think([user("what is your name"), assistant(whole.text)], instructions=GO_ON)

    assert rest == SpokenAnswer("That is all.")


def test_what_was_cut_off_before_its_first_word_is_no_answer():
    answer = think([user("my name is Ada"), assistant("")], [], None)

    assert answer.text == "You said: my name is Ada"
