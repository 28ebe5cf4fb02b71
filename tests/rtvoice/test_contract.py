"""The programs of the original README, their elisions filled in, as a user runs them.

Each is a process of its own, with nothing but a key and a server in its environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import wave
from pathlib import Path
from typing import Any

import pytest

from tests.conversation import DEAF
from tests.fake_server import FakeServer
from tests.rig import TIMEOUT_S
from tests.test_command import environment_of, needs_speech, spoken

KEY = {"OPENAI_API_KEY": "sk-canary-contract"}


class Program:
    """A program of a user's, started."""

    def __init__(
        self,
        code: str,
        folder: Path,
        server: str = "sandbox",
        *,
        on_threads: bool = False,
        **environment: str,
    ) -> None:
        """Start it.

        Args:
            code: of the program.
            folder: in which it is started.
            server: of its sessions.
            on_threads: whether these are on threads, but for the devices of the machine.
            environment: more variables.
        """
        path = folder / "program.py"
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        runner = [str(path)]
        if on_threads:
            runner = ["-m", "tests.threads", *runner, "microphone", "speaker"]
        self.process = subprocess.Popen(
            [sys.executable, *runner],
            cwd=folder,
            env=environment_of(**KEY, RTVOICE_SERVER=server, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip()

    def end(self, code: int = 0) -> list[str]:
        """Wait for its end; return the other lines that it has printed."""
        out, errors = self.process.communicate(timeout=8 * TIMEOUT_S)
        assert self.process.returncode == code, errors
        if code == 0:
            assert errors == ""
        return str(out).splitlines()


BASIC_USAGE = """
    import asyncio
    from rtvoice import Agent, Tools
    from rtvoice.views import AssistantVoice, RealtimeModel

    async def main():
        tools = Tools()

        @tools.action("Get weather information")
        async def get_weather(location: str) -> str:
            return f"Weather in {location}: Sunny, 22°C"

        # Initialize agent
        agent = Agent(
            instructions="You are a helpful voice assistant.",
            model=RealtimeModel.GPT_REALTIME_MINI,
            voice=AssistantVoice.MARIN,
            speech_speed=1.0,
            tools=tools,
            api_key="your-openai-api-key"
        )

        # Start conversation
        async with agent:
            # Agent runs until user says "stop" or timeout occurs
            pass

        # Get conversation history
        history = await agent.stop()
        print(f"Conversation had {len(history.conversation_turns)} turns")

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.mark.long
@pytest.mark.timeout(240)
def test_basic_usage_lasts_until_the_timeout(tmp_path: Path) -> None:
    assert Program(BASIC_USAGE, tmp_path).end() == ["Conversation had 0 turns"]


def test_basic_usage_has_a_conversation_with_its_tool(tmp_path: Path) -> None:
    with FakeServer() as server:
        program = Program(BASIC_USAGE, tmp_path, server.url, on_threads=True)
        connection = server.connection()
        session = connection.expect("session.update")["session"]
        names = [tool["name"] for tool in session["tools"]]
        connection.call("get_weather", '{"location": "Rome"}', call_id="c1")
        output = connection.expect(
            "conversation.item.create", lambda e: e["item"]["type"] == "function_call_output"
        )
        connection.say("It is sunny in Rome.", bytes(4800), item="a1")
        connection.call("stop_assistant_run", "{}", call_id="c2")
        server.wait_for(lambda: len(connection.of("response.create")) == 2)
        connection.say("Goodbye.", bytes(4800), item="a2")
        lines = program.end()

    assert output["item"]["output"] == "Weather in Rome: Sunny, 22°C"
    assert "get_weather" in names
    assert session["audio"]["output"]["voice"] == "marin"
    assert lines == ["Conversation had 2 turns"]


def test_basic_usage_ends_at_ctrl_c_and_leaves_nothing(tmp_path: Path) -> None:
    with FakeServer() as server:
        program = Program(BASIC_USAGE, tmp_path, server.url)
        server.connection()
        program.process.send_signal(signal.SIGINT)
        program.end(code=-signal.SIGINT)
        server.wait_for(lambda: server.connections[0].closed)


def test_custom_tools_are_called_with_checked_arguments(tmp_path: Path) -> None:
    code = """
        import asyncio
        from typing import Annotated
        from rtvoice import Agent, Tools

        tools = Tools()

        async def search_database(query, limit):
            return [query] * limit

        @tools.action("Search for information")
        async def search(
            query: Annotated[str, "The search query"],
            max_results: Annotated[int, "Maximum number of results"] = 5
        ) -> str:
            # Your implementation
            results = await search_database(query, limit=max_results)
            return f"Found {len(results)} results"

        @tools.action(
            description="Book a restaurant reservation",
            response_instruction="Confirm the booking details to the user"
        )
        async def book_restaurant(
            restaurant: Annotated[str, "Restaurant name"],
            time: Annotated[str, "Reservation time (HH:MM)"],
            guests: Annotated[int, "Number of guests"]
        ) -> str:
            # Your booking logic
            return f"Booked table for {guests} at {restaurant} for {time}"

        async def main():
            agent = Agent(tools=tools, inactivity_timeout_s=2)
            async with agent:
                pass
            for call in (await agent.stop()).tool_calls:
                print(call.output)

        asyncio.run(main())
    """
    with FakeServer() as server:
        program = Program(code, tmp_path, server.url, on_threads=True)
        connection = server.connection()
        tools = {tool["name"]: tool for tool in connection.events[0]["session"]["tools"]}
        connection.call("search", '{"query": "cats"}', call_id="c1")
        booking = {"restaurant": "Roma", "time": "19:30", "guests": 2}
        connection.expect("response.create")
        connection.say("Five.", bytes(960), item="a1")
        connection.call("book_restaurant", json.dumps(booking), call_id="c2")
        asked = connection.expect(
            "response.create", lambda e: "Confirm the booking" in str(e["response"])
        )
        connection.say("Booked.", bytes(960), item="a2")
        lines = program.end()

    assert lines == ["Found 5 results", "Booked table for 2 at Roma for 19:30"]
    assert tools["search"]["parameters"]["required"] == ["query"]
    assert "Confirm the booking details to the user" in asked["response"]["instructions"]


@pytest.mark.parametrize("name", ["messages", "actors"])
def test_a_file_that_has_the_name_of_a_part_of_ours_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "program.py").write_text("from rtvoice import Agent\n")

    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"], capture_output=True, text=True, check=False
    )

    told = done.stderr.splitlines()[-1]
    assert told.startswith(f"ImportError: {tmp_path / name}.py has the name of a part of rtvoice")


@needs_speech
def test_custom_audio_devices_talk(tmp_path: Path) -> None:
    spoken(tmp_path / "hello.wav", "hello")
    spoken(tmp_path / "stop.wav", "stop")
    code = """
        import asyncio, wave
        from rtvoice import Agent
        from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice
        from collections.abc import AsyncIterator

        def sound(name):
            with wave.open(name) as file:
                return file.readframes(file.getnframes())

        class CustomMicrophone(AudioInputDevice):
            sample_rate = 22050

            async def start(self) -> None:
                # Initialize your audio source
                self._active = True
                self._waiting = bytearray(sound("hello.wav"))

            async def stop(self) -> None:
                # Cleanup
                self._active = False

            async def stream_chunks(self) -> AsyncIterator[bytes]:
                while self.is_active:
                    chunk = await self.read_audio()  # Your implementation
                    yield chunk

            @property
            def is_active(self) -> bool:
                return self._active

            async def read_audio(self):
                await asyncio.sleep(0.02)
                chunk = bytes(self._waiting[:882])
                del self._waiting[:882]
                return chunk + bytes(882 - len(chunk))

        class CustomSpeaker(AudioOutputDevice):
            async def start(self) -> None:
                # Initialize audio output
                self.played = b""

            async def stop(self) -> None:
                # Cleanup
                pass

            async def play_chunk(self, chunk: bytes) -> None:
                # Play audio chunk
                self.played += chunk

            async def clear_buffer(self) -> None:
                # Clear any queued audio
                pass

        microphone, speaker = CustomMicrophone(), CustomSpeaker()

        # Use custom devices
        agent = Agent(
            audio_input=microphone,
            audio_output=speaker
        )

        async def main():
            from rtvoice import PlaybackEnded

            agent.event_bus.subscribe(
                PlaybackEnded, lambda event: microphone._waiting.extend(sound("stop.wav"))
            )
            async with agent:
                pass
            print(len(speaker.played) > 24_000, agent.history.ended_because)

        asyncio.run(main())
    """

    assert Program(code, tmp_path, on_threads=True).end() == ["True stop tool"]


@needs_speech
def test_events_recording_and_history(tmp_path: Path) -> None:
    spoken(tmp_path / "question.wav", "what is your name")
    code = """
        import asyncio
        from rtvoice import Agent, InputAudioTranscriptionCompleted

        agent = Agent(
            recording_output_path="conversations/session_001.wav",
            transcription_model="gpt-transcribe",
            audio_input="question.wav",
            audio_output="null",
        )

        # Subscribe to events
        async def on_transcription(event):
            print(f"Transcribed: {event.transcript}")

        agent.event_bus.subscribe(
            InputAudioTranscriptionCompleted,
            on_transcription
        )

        async def main():
            async with agent:
                pass
            history = await agent.stop()

            for turn in history.conversation_turns:
                print(f"{turn.role}: {turn.content}")

        asyncio.run(main())
    """

    lines = Program(code, tmp_path, on_threads=True).end()

    assert lines == [
        "Transcribed: what is your name",
        "user: what is your name",
        "assistant: My name is Sandbox.",
    ]
    with wave.open(str(tmp_path / "conversations" / "session_001.wav")) as file:
        assert file.getnchannels() == 2
        assert file.getnframes() > 24_000


def test_a_program_that_burns_cpu_talks_all_the_same(tmp_path: Path) -> None:
    code = """
        import asyncio, time
        from rtvoice import Agent, PlaybackEnded

        async def burn():
            while True:
                end = time.monotonic() + 0.2
                while time.monotonic() < end:
                    pass
                await asyncio.sleep(0)

        async def main():
            agent = Agent(audio_input="silence", audio_output="null")
            async with agent:
                burning = asyncio.create_task(burn())
                agent.send_text("what is your name")
                async for event in agent.events(PlaybackEnded):
                    break
                burning.cancel()
                await agent.stop()
            for turn in agent.history.conversation_turns:
                print(turn.content, turn.interrupted)

        asyncio.run(main())
    """

    lines = Program(code, tmp_path, **DEAF).end()

    assert lines == ["what is your name False", "My name is Sandbox. False"]


def test_a_component_of_ones_own_is_supervised_like_ours(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(MOOD, encoding="utf-8")
    code = """
        import asyncio, os, signal
        from app import Mood
        from rtvoice import Agent, ComponentRestarted

        async def main():
            agent = Agent(
                audio_input="silence", audio_output="null", components={"mood": "app:MoodActor"}
            )
            async with agent:
                moods = agent.events(Mood)
                agent.send_text("thank you")
                async for mood in moods:
                    print(mood.text, mood.heard)
                    break
                back = agent.events(ComponentRestarted)
                os.kill((await agent.status())["mood"]["pid"], signal.SIGKILL)
                async for event in back:
                    print(event.component)
                    break
                moods = agent.events(Mood)
                agent.send_text("thank you")
                async for mood in moods:
                    print(mood.text, mood.heard)
                    break
                await agent.stop()

        asyncio.run(main())
    """

    lines = Program(code, tmp_path, **DEAF).end()

    assert lines == ["pleased 1", "mood", "pleased 2"]


MOOD = '''
"""How the user feels, as an actor of its own: told every turn, tells the mood."""

from typing import ClassVar

from actors.base import Actor
from messages import CONTROL, Message, Turn


class Mood(Message, frozen=True, array_like=True, tag=200):
    text: str
    heard: int


class MoodActor(Actor):
    accepts: ClassVar = {Turn: CONTROL}

    def opened(self) -> None:
        self._heard = self.saved(int) or 0

    def handle(self, message: Message) -> None:
        if isinstance(message, Turn) and message.role == "user":
            self._heard += 1
            self.save(self._heard)
            mood = "pleased" if "thank" in message.text else "calm"
            self.send(Mood(mood, self._heard))
'''


def test_the_command_runs_an_agent_with_components_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(MOOD, encoding="utf-8")
    (tmp_path / "agent.py").write_text(
        "from rtvoice import Agent\n"
        "def make_agent():\n"
        "    return Agent(components={'mood': 'app:MoodActor'})\n",
        encoding="utf-8",
    )
    arguments = ["agent.py:make_agent", "--input", "silence", "--output", "null"]

    done = subprocess.run(
        [sys.executable, "-m", "supervisor", *arguments, "--max-seconds", "1", "--events", "-"],
        cwd=tmp_path,
        env=environment_of(RTVOICE_SERVER="sandbox", **DEAF),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=8 * TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    (started,) = [event for event in events if event["event"] == "session_started"]
    assert "mood" in started["pids"]


def measured(code: str) -> Any:
    """Return what a fresh interpreter prints as JSON, with everything compiled before."""
    run = [sys.executable, "-c", code]
    outputs = [
        subprocess.run(run, env=environment_of(), capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    return json.loads(outputs[-1])


def test_importing_rtvoice_is_light() -> None:
    code = (
        "import sys, json; import rtvoice; heavy = "
        "'msgspec messages actors supervisor asyncio numpy structlog websockets pykka'.split(); "
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )

    assert measured(code) == []


def test_an_agent_is_made_without_asyncio(tmp_path: Path) -> None:
    code = (
        "import sys, json; from rtvoice import Agent; Agent(); "
        "print(json.dumps([name for name in ('asyncio', 'supervisor', 'pykka', 'websockets') "
        "if name in sys.modules]))"
    )

    assert measured(code) == []


def test_a_typed_program_is_clean(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "typed.py").write_text(textwrap.dedent(TYPED), encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "typed.py"],
        cwd=tmp_path,
        env=environment_of(MYPYPATH=os.pathsep.join(sys.path[:1])),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if "error:" in line]
    assert len(errors) == 2, done.stdout
    assert "nonsense" in errors[0] or "Never" in errors[0]
    assert "no_such_field" in errors[1]


TYPED = """
    import asyncio
    from collections.abc import AsyncIterator

    from rtvoice import (
        Agent,
        AssistantVoice,
        AudioInputDevice,
        AudioOutputDevice,
        ConversationHistory,
        InputAudioTranscriptionCompleted,
        RealtimeModel,
        ResponseDoneEvent,
        StopAgentCommand,
        Tools,
        Turn,
    )

    tools = Tools()


    @tools.action("Adds.")
    def add(a: int, b: int) -> int:
        return a + b


    class Microphone(AudioInputDevice):
        async def start(self) -> None: ...
        async def stop(self) -> None: ...
        async def stream_chunks(self) -> AsyncIterator[bytes]:
            yield b""

        @property
        def is_active(self) -> bool:
            return True


    async def on_transcription(event: InputAudioTranscriptionCompleted) -> None:
        print(event.transcript)


    async def main() -> ConversationHistory:
        agent = Agent(
            "Be kind.",
            RealtimeModel.GPT_REALTIME,
            AssistantVoice.CEDAR,
            tools=tools,
            audio_input=Microphone(),
        )
        agent.event_bus.subscribe(InputAudioTranscriptionCompleted, on_transcription)
        agent.event_bus.subscribe(ResponseDoneEvent, lambda event: print(event.response.status))
        async with agent:
            agent.send_text("hello")
            await agent.mute()
            async for turn in agent.events(Turn):
                text: str = turn.text
                print(text)
                agent.event_bus.publish(StopAgentCommand())
            number: int = add(1, 2)
            print(number)
            await agent.update(instructions="x", inactivity_timeout_s=None)
        return await agent.stop()


    Agent(nonsense=3)
    asyncio.run(main()).no_such_field
"""
