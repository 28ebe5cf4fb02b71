"""Tools as the documents write them, in whole conversations."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import pytest

from messages import ComponentRestarted, ToolAnswer
from rtvoice import ToolContext, Tools
from supervisor import Session, SessionFailedError
from tests.fake_server import Connection, FakeServer
from tests.rig import TIMEOUT_S

pytestmark = pytest.mark.usefixtures("on_threads")


def conversation(server: FakeServer, tools: Tools | str, **settings: object) -> Session:
    quiet = {"input": "silence", "output": "null", "inactivity_timeout_s": None}
    return Session(server=server.url, tools=tools, **{**quiet, **settings})


def outputs(connection: Connection, call_id: str) -> list[str]:
    items = [event["item"] for event in connection.of("conversation.item.create")]
    return [item["output"] for item in items if item.get("call_id") == call_id]


def documented_tools() -> Tools:
    tools = Tools()

    async def search_database(query: str, limit: int) -> list[str]:
        return [query] * limit

    @tools.action("Search for information")
    async def search(
        query: Annotated[str, "The search query"],
        max_results: Annotated[int, "Maximum number of results"] = 5,
    ) -> str:
        # Your implementation
        results = await search_database(query, limit=max_results)
        return f"Found {len(results)} results"

    @tools.action(
        description="Book a restaurant reservation",
        response_instruction="Confirm the booking details to the user",
    )
    async def book_restaurant(
        restaurant: Annotated[str, "Restaurant name"],
        time: Annotated[str, "Reservation time (HH:MM)"],
        guests: Annotated[int, "Number of guests"],
    ) -> str:
        # Your booking logic
        return f"Booked table for {guests} at {restaurant} for {time}"

    return tools


def test_the_tools_of_the_documents_are_called_and_spoken_about(server: FakeServer) -> None:
    with conversation(server, documented_tools()):
        connection = server.connection()
        connection.call("search", '{"query": "tea"}', call_id="call_1")
        connection.expect("response.create")
        connection.call(
            "book_restaurant",
            '{"restaurant": "Roma", "time": "19:30", "guests": "4"}',
            call_id="call_2",
        )
        create = connection.expect(
            "response.create", lambda event: "instructions" in event.get("response", {})
        )

    told = connection.events[0]["session"]["tools"]
    search = next(tool for tool in told if tool["name"] == "search")
    assert search == {
        "type": "function",
        "name": "search",
        "description": "Search for information",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "The search query"},
                "max_results": {
                    "type": "integer",
                    "description": "Maximum number of results",
                    "default": 5,
                },
            },
            "required": ["query"],
            "additionalProperties": False,
        },
    }
    assert outputs(connection, "call_1") == ["Found 5 results"]
    assert outputs(connection, "call_2") == ["Booked table for 4 at Roma for 19:30"]
    assert "Confirm the booking details to the user" in create["response"]["instructions"]


@pytest.mark.processes("tools")
@pytest.mark.parametrize("answers", ["while it is down", "afterwards"])
def test_a_call_in_the_program_has_one_answer_when_the_tools_are_killed(
    server: FakeServer, answers: str
) -> None:
    tools, begun, gate, runs = Tools(), threading.Event(), threading.Event(), []

    @tools.action("waits")
    def wait() -> str:
        runs.append(1)
        begun.set()
        gate.wait(TIMEOUT_S)
        return "waited"

    with conversation(server, tools) as session:
        restarted, told = session.events(ComponentRestarted), session.events(ToolAnswer)
        connection = server.connection()
        connection.call("wait", "{}", call_id="call_1")
        assert begun.wait(TIMEOUT_S)
        os.kill(session.status()["tools"]["pid"], signal.SIGKILL)
        if answers == "while it is down":
            gate.set()
        assert restarted.get(TIMEOUT_S) is not None
        gate.set()
        answer = told.get(TIMEOUT_S)
        connection.expect("response.create")
        connection.call("wait", "{}", call_id="call_2")
        assert told.get(TIMEOUT_S) is not None

    assert isinstance(answer, ToolAnswer)
    assert (answer.call_id, answer.output, answer.failed) == ("call_1", "waited", False)
    assert outputs(connection, "call_1") == ["waited"]
    assert runs == [1, 1]


def test_a_tool_that_speaks_while_it_works_is_heard_before_its_answer(server: FakeServer) -> None:
    tools, gate = Tools(), asyncio.Event()

    @tools.action("looks")
    async def look(context: ToolContext) -> str:
        context.say("One moment.")
        await asyncio.wait_for(gate.wait(), TIMEOUT_S)
        return "found"

    async def talk() -> Connection:
        async with conversation(server, tools):
            connection = await asyncio.to_thread(server.connection)
            connection.call("look", "{}", call_id="call_1")
            create = await asyncio.to_thread(connection.expect, "response.create")
            assert 'Say to the user now: "One moment."' in create["response"]["instructions"]
            assert outputs(connection, "call_1") == []
            gate.set()
            await asyncio.to_thread(
                server.wait_for, lambda: outputs(connection, "call_1") == ["found"]
            )
        return connection

    asyncio.run(talk())


@pytest.mark.processes("tools")
def test_tools_given_by_name_run_in_the_tools_process(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "my_tools.py"
    path.write_text(
        "import os\nfrom rtvoice import Tools\ntools = Tools()\n"
        "@tools.action('Return the id of the process.')\n"
        "def process_id() -> int:\n    return os.getpid()\n"
    )
    with conversation(server, f"{path}:tools") as session:
        events = session.events(ToolAnswer)
        server.connection().call("process_id", "{}", call_id="call_1")
        answer = events.get(TIMEOUT_S)

        assert isinstance(answer, ToolAnswer)
        assert answer.output == str(session.status()["tools"]["pid"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.py:tools", r"tools cannot start: .*there is no file"),
        ("os:path", r"tools cannot start: .*not an rtvoice\.Tools"),
    ],
)
def test_a_name_without_tools_fails_the_start_with_the_cause(
    server: FakeServer, name: str, words: str
) -> None:
    with pytest.raises(SessionFailedError, match=words):
        conversation(server, name).start()


def test_a_tool_with_the_name_of_a_built_in_one_fails_the_start(server: FakeServer) -> None:
    tools = Tools()
    tools.action("mine", name="get_current_time")(lambda: "noon")

    with pytest.raises(SessionFailedError, match=r"'get_current_time'.*leave the built-in one out"):
        conversation(server, tools).start()
