"""Every command and every block of code in the documents is run, or is another test's subject."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import rtvoice
from rtvoice.testing import SandboxServer
from scripts.reference import reference
from tests.rtvoice.folder.test_folder import written
from tests.test_command import environment_of, hears, speaks, spoken

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(
    r"^```(?P<kind>\w+)(?: file=(?P<file>\S+)| from=(?P<source>\S+))?\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
"""``file=``: written into a file of that name. ``from=``: an excerpt of a file in docs/."""

COVERED = {
    "./scripts/run": "tests/test_setup.py",
    "./scripts/test": "tests/test_setup.py",
    "./scripts/test --long": "tests/test_setup.py",
    "./scripts/test tests/test_faults.py": "tests/test_setup.py",
    'pip install ".[audio]"': "tests/test_setup.py",
    "python -m supervisor": "tests/test_command.py",
    "python -m supervisor --doctor": "tests/rtvoice/command/test_doctor.py",
    "python -m supervisor --probes": "tests/test_inject.py",
    "python -m supervisor serve shop.py:make_agent": "tests/test_serve.py",
    "python -m supervisor --web": "tests/test_page.py",
    "python -m supervisor --web assistant.py:agent": "tests/test_page.py",
    "python -m supervisor --web --push-to-talk assistant.py:agent": "tests/test_page.py",
    "python -m supervisor fleet --store sqlite:///fleet.db --agent shop.py:make_agent": (
        "tests/test_fleet.py"
    ),
    "python asgi_app.py": "tests/test_examples.py",
}
"""Commands that set up the machine or run for long, and the tests that know them."""


class Block(NamedTuple):
    """A block of code in a document."""

    document: str
    kind: str
    file: str
    source: str
    text: str

    def __str__(self) -> str:
        line = next((line for line in self.text.splitlines() if "(" in line), "")
        return f"{self.document}: {line.strip()[:40]}"


def blocks(kind: str = "") -> list[Block]:
    """Return every block of a kind, or of any."""
    return [
        Block(document.relative_to(ROOT).as_posix(), *(found or "" for found in match.groups()))
        for document in DOCUMENTS
        for match in BLOCK.finditer(document.read_text(encoding="utf-8"))
        if kind in ("", match["kind"])
    ]


def programs() -> list[Block]:
    """Return the programs that stand in the documents as a whole."""
    return [block for block in blocks("python") if not block.file and not block.source]


def commands() -> list[str]:
    """Return every command in the documents, without its comment."""
    lines = [line for block in blocks("sh") for line in block.text.splitlines()]
    return sorted({re.sub(r"\s+#.*", "", line).strip() for line in lines} - {""})


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(pace=4) as server:
        yield server


def environment(sandbox: SandboxServer) -> dict[str, str]:
    """Return that of a user with a key and a server, and no sound card."""
    return environment_of(
        OPENAI_API_KEY="sk-canary-documents",
        RTVOICE_SERVER=sandbox.url,
        RTVOICE_INPUT="silence",
        RTVOICE_OUTPUT="null",
    )


def test_there_are_no_blocks_of_a_kind_that_is_not_run() -> None:
    assert {block.kind for block in blocks() if not block.source} <= {"python", "sh", "text"}


def without_blank_lines(text: str) -> str:
    """Return the lines with something in them; formatters of documents change the others."""
    return "".join(f"{line}\n" for line in text.splitlines() if line.strip())


def test_excerpts_stand_in_their_files_as_they_are_shown() -> None:
    for block in blocks():
        if block.source:
            whole = without_blank_lines((ROOT / "docs" / block.source).read_text(encoding="utf-8"))
            text = without_blank_lines(block.text)
            shown = [textwrap.indent(text, indent) for indent in ("", 4 * " ", 12 * " ")]
            assert any(text in whole for text in shown), f"{block} is not in {block.source}"


PROCESSES = {
    r'server="sandbox"|pids\["supervisor"\]': (),
    r"heavy_tools\.py:": ("tools",),
    r"noise\.py:": ("microphone",),
    r'"mood": "mood:MoodActor"': ("mood",),
}
"""What is killed or given by name in a program, and the components that then have processes; of the
first program that a reader sees, and of one that kills its supervisor, all of them."""


def runner(program: str) -> list[str]:
    """Return what runs a program, with its sessions on threads as far as may be."""
    named = [processes for what, processes in PROCESSES.items() if re.search(what, program)]
    if () in named:
        return ["program.py"]
    return ["-m", "tests.threads", "program.py", *(name for names in named for name in names)]


@pytest.mark.parametrize("block", programs(), ids=str)
def test_the_programs_in_the_documents_run(
    block: Block, tmp_path: Path, sandbox: SandboxServer
) -> None:
    for other in blocks("python"):
        if other.file and other.document == block.document:
            (tmp_path / other.file).write_text(other.text, encoding="utf-8")

    (tmp_path / "program.py").write_text(block.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *runner(block.text)],
        cwd=tmp_path,
        env=environment(sandbox) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.skipif(not (hears and speaks), reason="needs pocketsphinx and espeak-ng")
@pytest.mark.parametrize("command", [line for line in commands() if line not in COVERED])
def test_the_commands_in_the_documents_work(command: str, tmp_path: Path) -> None:
    for block in blocks("python"):
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
    spoken(tmp_path / "question.wav", "hello")
    words = shlex.split(command)
    assert words[0] == "python", f"no test knows how to run {command!r}"
    if words[1].startswith("scripts/"):
        words = [words[0], str(ROOT / words[1]), "--help"]
    if "assistant.py:agent" in words:
        words += ["--input", "silence", "--output", "null", "--max-seconds", "2"]
        words += ["--server", "sandbox"]
    if "talks/first" in words and "--session" not in words:
        (tmp_path / "talks").mkdir()
        written(tmp_path, samples=2_400).path.rename(tmp_path / "talks" / "first")

    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=tmp_path,
        env=environment_of(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@functools.cache
def of_the_docstrings() -> str:
    return reference()


def test_the_reference_is_that_of_the_docstrings() -> None:
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == of_the_docstrings(), (
        "run python scripts/reference.py"
    )


def test_every_public_name_is_in_the_reference() -> None:
    headings = set(re.findall(r"^### (\w+)$", of_the_docstrings(), re.MULTILINE))

    assert set(rtvoice.__all__) - {"__version__"} <= headings


def anchors(document: Path) -> set[str]:
    """Return what one can link to in a document: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def project_url() -> str:
    """Return where the files of the project are on the web."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"{project['urls']['Homepage']}/blob/main/"


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
            if target.startswith(project_url()):
                target = os.path.relpath(ROOT / target.removeprefix(project_url()), document.parent)
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            other = document.parent / path if path else document
            assert other.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in anchors(other), f"{document.name}: {target}"


def test_the_readme_links_to_nothing_that_a_package_index_does_not_have() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []


def test_the_documents_build_into_a_site_whose_links_lead_somewhere(tmp_path: Path) -> None:
    command = ["-m", "properdocs", "build", "-f", str(ROOT / "scripts/site.yml"), "-d"]

    built = subprocess.run(
        [sys.executable, *command, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert built.returncode == 0, built.stderr
    assert (tmp_path / "architecture" / "index.html").exists()


def test_every_test_that_a_document_names_is_there() -> None:
    there = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))

    for document in DOCUMENTS:
        for name in re.findall(r"`(test_\w+)`", document.read_text(encoding="utf-8")):
            assert f"def {name}(" in there, f"{document.name} names {name}"


def test_the_documents_speak_of_no_machine_of_ours() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert os.sep + "work" + os.sep not in text
        assert "/root/" not in text
        assert not re.search(r"@[A-Z]+@", text), "a placeholder"
