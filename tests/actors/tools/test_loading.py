"""Loading the user's agent by name, and the errors when that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from actors.tools.loading import AgentLoadError, load_agent

AGENT = """
class Agent:
    tools = None
    def __init__(self, instructions=""):
        self.instructions = instructions
    def describe(self):
        return {"instructions": self.instructions}
"""


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
    load_agent.cache_clear()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(AGENT + text)


def test_an_agent_in_a_file_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "guide.py", "agent = Agent('hi')")

    assert load_agent("sub/guide.py:agent").describe() == {"instructions": "hi"}


def test_an_agent_in_a_module_of_the_working_directory_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "pack" / "guide_module.py", "agent = Agent('hi')")

    assert load_agent("pack.guide_module:agent").describe() == {"instructions": "hi"}


def test_a_file_finds_the_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "its_neighbour.py").write_text("WORD = 'near'")
    write(tmp_path / "sub" / "guide2.py", "import its_neighbour\nagent = Agent(its_neighbour.WORD)")

    assert load_agent("sub/guide2.py:agent").describe() == {"instructions": "near"}


def test_the_users_folders_come_behind_ours(tmp_path: Path) -> None:
    write(tmp_path / "guide3.py", "agent = Agent()")
    first = sys.path[0]

    load_agent("guide3.py:agent")

    assert sys.path[0] == first
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize("name", ["messages.py", "json.py", "my-agent.py"])
def test_a_file_may_have_a_name_that_is_taken_or_is_none(tmp_path: Path, name: str) -> None:
    import json

    import messages

    write(tmp_path / name, "agent = Agent('mine')")

    assert load_agent(f"{name}:agent").describe() == {"instructions": "mine"}
    assert sys.modules["messages"] is messages
    assert sys.modules["json"] is json


def test_an_attribute_of_an_attribute_is_found(tmp_path: Path) -> None:
    write(tmp_path / "guide4.py", "class holder:\n    agent = Agent('deep')")

    assert load_agent("guide4.py:holder.agent").describe() == {"instructions": "deep"}


def test_a_function_that_makes_an_agent_is_called(tmp_path: Path) -> None:
    write(tmp_path / "guide5.py", "def make_agent():\n    return Agent('made')")

    assert load_agent("guide5.py:make_agent").describe() == {"instructions": "made"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "write it as module:attribute or path/file.py:attribute"),
        (":agent", "write it as"),
        ("a.py:", "write it as"),
        ("missing.py:agent", "there is no file"),
        ("missing_module:agent", "there is no module missing_module"),
        ("good.py:agnet", "has no 'agnet'; the agents in it are: agent"),
        ("empty.py:agent", "there is no agent in it"),
        ("good.py:Agent", "Agent is a class"),
        ("good.py:number", "number is of type int, not an rtvoice.Agent"),
        ("good.py:make_number", "make_number is of type int, not an rtvoice.Agent"),
        ("good.py:make_nothing", "calling it failed: TypeError: make_nothing() missing 1 required"),
        ("broken.py:agent", "importing it failed: NameError: name 'nope' is not defined"),
        ("syntax.py:agent", "importing it failed: SyntaxError"),
        ("exits.py:agent", "it called sys.exit(4)"),
        ("needs.py:agent", "No module named 'not_installed_here'"),
    ],
)
def test_each_failure_says_what_is_wrong(tmp_path: Path, name: str, words: str) -> None:
    write(tmp_path / "good.py", "agent = Agent()\nnumber = 3")
    with (tmp_path / "good.py").open("a") as file:
        file.write("\ndef make_number():\n    return 3\n\ndef make_nothing(x):\n    return x\n")
    (tmp_path / "empty.py").write_text("import os")
    (tmp_path / "broken.py").write_text("x = 1\nnope\n")
    (tmp_path / "syntax.py").write_text("def (:\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(4)\n")
    (tmp_path / "needs.py").write_text("import not_installed_here\n")

    with pytest.raises(AgentLoadError) as failure:
        load_agent(name)

    text = str(failure.value)
    assert text.startswith(f"agent {name}: ")
    assert words in text
    assert "\n" not in text


def test_an_exception_of_an_import_is_reported_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "places.py").write_text("import json\n\njson.loads('{')\n")

    with pytest.raises(AgentLoadError) as failure:
        load_agent("places.py:agent")

    assert f"({tmp_path / 'places.py'}, line 3)" in str(failure.value)


@pytest.mark.parametrize("use", ["import messages; messages.hello()", "from messages import hello"])
def test_a_module_beside_an_agent_that_has_the_name_of_ours_is_named(
    tmp_path: Path, use: str
) -> None:
    (tmp_path / "messages.py").write_text("def hello(): ...\n")
    write(tmp_path / "guide.py", f"{use}\nagent = Agent()")

    with pytest.raises(AgentLoadError) as told:
        load_agent("guide.py:agent")

    assert str(told.value) == (
        "agent guide.py:agent: messages.py has the name of a part of rtvoice (messages), which is "
        "imported in its place: give it another name"
    )
