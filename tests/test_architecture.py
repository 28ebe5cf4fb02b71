"""The rules that keep the project as it is drawn in docs/architecture.md."""

from __future__ import annotations

import ast
import collections
import graphlib
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pykka
import pytest

from actors.base import Actor
from actors.devices.base import OUTPUT_METHODS
from actors.embedding.hosting import Hosting
from actors.tools.registry import Tools
from messages import Message, message_types, type_of_tag
from supervisor import SPECS

ROOT = Path(__file__).resolve().parent.parent
OURS = {"messages", "actors", "supervisor", "rtvoice"}
COMPONENTS = ["recorder", "history", "speaker", "tools", "realtime", "microphone"]


def imports_of(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, wherever in it."""
    yield from imports_in(ast.parse(path.read_text(encoding="utf-8")))


def imports_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def names_imported_in(path: Path) -> Iterator[str]:
    """Yield the same, and the names that are imported out of modules, some of them modules too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(folder: str) -> list[tuple[str, str]]:
    """Return (file, module of ours that it imports) for all files of a package."""
    return [
        (str(path.relative_to(ROOT)), name)
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in imports_of(path)
        if name.split(".")[0] in OURS
    ]


def component_of(module: str) -> str:
    """Return the component that a module of actors belongs to; empty: shared by all."""
    name = module.split(".")[1] if "." in module else ""
    return name if name in COMPONENTS else ""


def test_messages_import_nothing_of_ours_but_messages() -> None:
    assert [(f, n) for f, n in ours("messages") if n.split(".")[0] != "messages"] == []


def test_actors_import_messages_and_actors_only() -> None:
    wrong = [(f, n) for f, n in ours("actors") if n.split(".")[0] not in ("messages", "actors")]

    assert wrong == []


def test_no_actor_imports_another_actor() -> None:
    for path in sorted((ROOT / "actors").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        mine = component_of(module)
        others = {component_of(name) for name in imports_of(path) if name.startswith("actors.")}
        allowed = {"", mine}
        if module == "actors.embedding.hosting":  # no actor: it runs the program's tools
            allowed.add("tools")
        assert others <= allowed, f"{module} imports {others - allowed}"


def test_what_supervises_imports_nothing_else_of_actors() -> None:
    wrong = [
        (file, name)
        for file, name in ours("actors/supervision")
        if not name.startswith(("messages", "actors.supervision"))
    ]

    assert wrong == []


def test_the_core_of_realtime_has_no_socket_no_thread_no_clock_and_no_operating_system() -> None:
    """What decides is told bytes and times, and answers with what is to be done."""
    outside = {"socket", "select", "selectors", "ssl", "websockets", "asyncio", "threading"}
    outside |= {"time", "datetime", "subprocess", "os", "signal"}

    imported = {
        (path.name, name)
        for path in (ROOT / "actors/realtime/core").glob("*.py")
        for name in imports_of(path)
    }

    assert imported
    assert [(file, name) for file, name in imported if name.split(".")[0] in outside] == []


def test_what_a_service_decides_has_no_socket_no_thread_and_no_clock() -> None:
    outside = {"socket", "select", "asyncio", "threading", "time", "datetime", "os", "subprocess"}
    cores = ("admission", "errors", "frames", "talk", "twilio")

    imported = {
        (name, module)
        for name in cores
        for module in imports_of(ROOT / "rtvoice/service" / f"{name}.py")
    }

    assert [(name, module) for name, module in imported if module.split(".")[0] in outside] == []


@pytest.mark.parametrize("folder", ["messages", "actors", "rtvoice"])
def test_no_modules_import_each_other_in_a_circle(folder: str) -> None:
    """Imports in functions, and for the sake of annotations, count too: they show who knows whom.

    The package itself does not count: it only collects the names of its modules.
    """
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    imported = {
        module: {name for name in names_imported_in(path) if name in modules} - {module}
        for module, path in modules.items()
    }

    graphlib.TopologicalSorter(imported).prepare()  # it raises CycleError, which has the circle


def test_no_component_imports_what_supervises_or_what_embeds() -> None:
    outside = [
        (file, name)
        for file, name in ours("actors")
        if not file.startswith(("actors/supervision", "actors/embedding"))
    ]
    wrong = [
        (file, name)
        for file, name in outside
        if name.startswith(("actors.supervision", "actors.embedding"))
    ]

    assert wrong == []


def test_the_supervisor_imports_no_component_and_rtvoice_only_in_its_main_lines() -> None:
    tree = ast.parse((ROOT / "supervisor.py").read_text(encoding="utf-8"))
    main = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
    )
    tree.body.remove(main)

    ours = [name for name in imports_in(tree) if name.split(".")[0] in OURS]
    allowed = ("messages", "actors.supervision", "actors.embedding")

    assert [name for name in ours if not name.startswith(allowed)] == []


def test_the_six_components_are_those_of_the_picture() -> None:
    assert [spec.name for spec in SPECS] == COMPONENTS
    assert [spec.name for spec in SPECS if spec.essential] == ["realtime"]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_each_component_is_a_pykka_threading_actor(spec: object) -> None:
    module, _, name = spec.target.partition(":")  # type: ignore[attr-defined]
    kind = getattr(importlib.import_module(module), name)

    assert issubclass(kind, Actor)
    assert issubclass(kind, pykka.ThreadingActor)
    assert kind.on_receive is Actor.on_receive  # accounted, on the actor's own thread


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_child_imports_nothing_heavy(spec: object) -> None:
    module = spec.target.partition(":")[0]  # type: ignore[attr-defined]

    assert _heavy(f"import actors.host, {module}") == []


def test_a_device_of_ones_own_imports_nothing_heavy_by_itself() -> None:
    code = "from actors.devices.own.named import load_playback; "
    code += "load_playback('actors.devices.silence:NullPlayback')"

    assert _heavy(code) == []


def test_a_card_that_cancels_no_echo_imports_nothing_heavy() -> None:
    code = "import actors.devices.card.portaudio, actors.devices.card.reference; "
    code += "import actors.devices.echo.choice"

    assert _heavy(code) == []


def test_the_supervisors_own_process_imports_nothing_of_a_program() -> None:
    heavy = _heavy("import supervisor, rtvoice.command.cli; supervisor.Supervisor({})._release()")

    assert not {"asyncio", "numpy", "structlog", "actors.embedding"} & set(heavy)


def test_the_console_is_imported_only_where_it_is_shown() -> None:
    modules = "rtvoice.command.cli, rtvoice.command.conversation, rtvoice.command.keyboard"
    modules += ", rtvoice.console.start, rtvoice.console.panels, rtvoice.console.talk"

    assert {"textual", "rich"}.isdisjoint(_heavy(f"import {modules}"))


def test_what_a_screen_shows_is_decided_without_input_and_output() -> None:
    outside = {"socket", "select", "asyncio", "threading", "time", "datetime", "os", "sys"}
    outside |= {"subprocess", "textual", "rich"}
    pure = [*(ROOT / "rtvoice/view").glob("*.py")]
    pure += [ROOT / "rtvoice/console" / f"{name}.py" for name in ("rows", "entries", "panels")]
    pure += [ROOT / "rtvoice/console" / f"{name}.py" for name in ("commands", "talk")]

    imported = {(path.name, name) for path in pure for name in imports_of(path)}

    assert [(file, name) for file, name in imported if name.split(".")[0] in outside] == []


_OPENS = "called while a component opens, under start_s"
_LOADS = "called while a component, or the user's code, is imported"
_THREAD = "called on a thread of its own, which no handler waits for"
_OTHER = "called in the supervisor or the program"
LATE = {
    "actors/devices/card/portaudio.py _Library.__init__": _OPENS,
    "actors/devices/card/portaudio.py PortAudioCapture.__init__": _OPENS,
    "actors/devices/card/portaudio.py PortAudioPlayback.__init__": _OPENS,
    "actors/devices/opening.py open_capture": _OPENS,
    "actors/microphone.py Microphone._prepare_canceller": _OPENS,
    "actors/devices/opening.py open_playback": _OPENS,
    "actors/devices/own/named.py load_capture": _OPENS,
    "actors/devices/own/named.py load_playback": _OPENS,
    "actors/devices/own/program.py ProgramInput.__init__": _OPENS,
    "actors/devices/own/program.py ProgramInput._change_rate": "only what a thread has imported",
    "actors/devices/own/program.py ProgramOutput.__init__": _OPENS,
    "actors/devices/sound/coded.py CodedFrames.__init__": _OPENS,
    "actors/devices/sound/resample.py SoxrResampler.__init__": _OPENS,
    "actors/devices/sound/source.py _FileConverter.__init__": _OPENS,
    "actors/devices/sound/source.py _open": _OPENS,
    "actors/devices/sound/wav.py WavFrames.__init__": _OPENS,
    "actors/base.py Actor.prepare": _LOADS,
    "actors/host.py Host._import": _LOADS,
    "actors/host.py limit_memory": _LOADS,
    "actors/loading.py _load_module": _LOADS,
    "actors/loading.py _near": _LOADS,
    "actors/realtime/connection.py Connection._connect": _THREAD,
    "actors/tools/actor.py ToolExecutor._imported_spans": _OPENS,
    "actors/tools/actor.py _import_for": _OPENS,
    "actors/tools/executor.py Executor._run_loop": _THREAD,
    "actors/tools/executor.py _end_tasks": _THREAD,
    "actors/tools/schema.py _field_types": _LOADS,
    "actors/tools/signature.py _annotations": _LOADS,
    "actors/tools/signature.py _signature": _LOADS,
    "messages/settings.py _server": _OTHER,
}
"""Functions that import something, and why none of them is part of a handler."""
_NO_CHILD = ("actors/embedding/", "actors/supervision/", "actors/devices/card/probe.py")
_NO_CHILD += ("actors/devices/card/soundcheck.py", "messages/transport/forkserver.py")
"""What runs in other processes than those of the components."""


def test_no_handler_imports_anything() -> None:
    """An import can take longer than a handler may, which tests/test_late_imports.py shows."""
    found = {
        f"{path.relative_to(ROOT).as_posix()} {function}"
        for folder in ("actors", "messages")
        for path in (ROOT / folder).rglob("*.py")
        for function in _importing_functions(ast.parse(path.read_text(encoding="utf-8")))
    }

    assert {name for name in found if not name.startswith(_NO_CHILD)} == set(LATE)


def _importing_functions(node: ast.AST, inside: str = "", owner: str = "") -> Iterator[str]:
    """Yield the functions of a module that import something when they are called."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _importing_functions(child, inside or f"{owner}{child.name}", owner)
        elif isinstance(child, ast.ClassDef):
            yield from _importing_functions(child, inside, f"{owner}{child.name}.")
        else:
            by_name = isinstance(child, ast.Attribute) and child.attr == "import_module"
            if inside and (by_name or isinstance(child, ast.Import | ast.ImportFrom)):
                yield inside
            yield from _importing_functions(child, inside, owner)


def _heavy(code: str) -> list[str]:
    """Return what a child had better not have imported."""
    libraries = "numpy structlog asyncio pyaudio pocketsphinx pywebrtc_audio hypothesis"
    libraries += " textual rich"
    others = ["supervisor", "actors.supervision", "actors.embedding", "rtvoice"]
    names = [*libraries.split(), *others]
    code += f"; import sys; print(*(name for name in {names!r} if name in sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return told.stdout.split()


def test_the_walks_through_the_code_name_what_there_is() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\| \d+ \| \w+ \| `(\S+\.py)` `(\w+)\.(\w+)` \|", text, re.MULTILINE)

    assert len(steps) > 20
    for path, kind, method in steps:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        methods = {
            f"{node.name}.{each.name}"
            for node in tree.body
            if isinstance(node, ast.ClassDef)
            for each in node.body
            if isinstance(each, ast.FunctionDef)
        }
        assert f"{kind}.{method}" in methods, f"{path} has no {kind}.{method}"


def test_every_module_that_the_architecture_names_is_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    there = [f"/{path.relative_to(ROOT).as_posix()}" for path in ROOT.rglob("*.py")]

    for name in set(re.findall(r"`([\w/]+\.py)`", text)):
        assert any(path.endswith(f"/{name}") for path in there), f"there is no {name}"


def test_only_what_people_expect_lies_at_the_top() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    top = {Path(name).parts[0] for name in listed}
    expected = {
        *("actors", "messages", "rtvoice", "supervisor.py", "tests", "scripts", "docs"),
        *("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
        *(".ci", ".gitignore"),
    }

    assert top <= expected


def test_what_goes_ahead_of_the_supervisor_has_one_receiver() -> None:
    receivers = collections.Counter[type[Message]]()
    for spec in SPECS:
        module, _, name = spec.target.partition(":")
        kind: type[Actor] = getattr(importlib.import_module(module), name)
        receivers.update(message for message, rule in kind.accepts.items() if rule.direct)
    device: Any = SimpleNamespace(**dict.fromkeys(OUTPUT_METHODS, print))
    hosting = Hosting(print, output_device=device, tools=Tools())
    receivers.update(type_of_tag(tag) for tag in hosting.direct_tags)

    sent = {kind for kind in message_types().values() if kind.direct}
    assert {kind for kind in sent if not receivers[kind]} == set()
    assert max(receivers.values()) == 1
    assert {kind.__name__ for kind in receivers if not kind.direct} == {
        *("AssistantAudio", "CapturedAudio", "ProgramCapture"),
        *("PlayedPosition", "ProgramPlayed"),
        *("ProgramPlayout", "ProgramFlush", "ProgramVolume"),
    }, "sound is recognized by its place; the others do not come twice"
    assert {kind.__name__ for kind in sent if kind.attempts == 1} == {
        *("PlaybackFlushed", "ProgramFlushed", "ProgramToolCall"),
    }, "what may come twice is harmless: these answer a number, or have an id"
