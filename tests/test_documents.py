"""Every command and every block of code in the documents is run, or is another test's subject."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_command import environment_of, hears, speaks, spoken

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)

COVERED = {
    "./scripts/run": "tests/test_setup.py",
    "./scripts/test": "tests/test_setup.py",
    "./scripts/test --long": "tests/test_setup.py",
    "./scripts/test tests/test_faults.py": "tests/test_setup.py",
    'pip install ".[audio]"': "tests/test_setup.py",
    "python -m supervisor": "tests/test_command.py",
    "python -m supervisor --probes": "tests/test_inject.py",
}
"""Commands that set up the machine or run for long, and the tests that know them."""


def blocks(kind: str) -> list[tuple[str, str, str]]:
    """Return (document, file name, text) of every block of a kind."""
    return [
        (document.name, name, text)
        for document in DOCUMENTS
        for found, name, text in BLOCK.findall(document.read_text(encoding="utf-8"))
        if found == kind
    ]


def commands() -> list[str]:
    """Return every command in the documents, without its comment."""
    lines = [line for _, _, text in blocks("sh") for line in text.splitlines()]
    return sorted({re.sub(r"\s+#.*", "", line).strip() for line in lines} - {""})


def test_there_are_no_blocks_of_a_kind_that_is_not_run() -> None:
    kinds = {
        kind
        for document in DOCUMENTS
        for kind, _, _ in BLOCK.findall(document.read_text(encoding="utf-8"))
    }

    assert kinds <= {"python", "sh", "text"}


@pytest.mark.parametrize(
    "code", [text for _, name, text in blocks("python") if not name], ids=lambda text: text[:30]
)
def test_the_code_in_the_documents_runs(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment_of(),
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
    for _, name, text in blocks("python"):
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    spoken(tmp_path / "question.wav", "hello")
    words = shlex.split(command)
    assert words[0] == "python", f"no test knows how to run {command!r}"
    if words[1].startswith("scripts/"):
        words = [words[0], str(ROOT / words[1]), "--help"]
    if "assistant.py:agent" in words:
        words += ["--input", "silence", "--output", "null", "--max-seconds", "2"]
        words += ["--server", "sandbox"]

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


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if not target.startswith("https://"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


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
