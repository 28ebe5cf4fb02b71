"""The commands that hints name work here: each is looked for with the shell's own eyes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from messages import hints


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with nothing in it, as the one in which rtvoice lies."""
    folder = tmp_path / "rtvoice"
    folder.mkdir()
    monkeypatch.setattr(hints, "_ROOT", folder)
    return folder


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an environment whose Python runs this program, with the system's on PATH."""
    folder = tmp_path / "venv"
    system = tmp_path / "usr"
    for place in (folder / "bin", system):
        place.mkdir(parents=True)
        for name in ("python", "python3"):
            (place / name).symlink_to(sys.executable)
        for name in ("pip", "rtvoice"):
            (place / name).write_text("#!/bin/sh\n")
            (place / name).chmod(0o755)
    (system / "rtvoice").unlink()
    monkeypatch.setattr(sys, "executable", str(folder / "bin" / "python"))
    monkeypatch.setattr(sys, "prefix", str(folder))
    monkeypatch.setenv("PATH", str(system))
    return folder


def test_in_a_checkout_that_its_script_has_set_up_the_script_is_named(
    root: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "scripts").mkdir()
    (root / "scripts" / "run").touch()
    (environment / "ready-run").touch()
    elsewhere = hints.rtvoice("--doctor")
    monkeypatch.chdir(root)

    assert elsewhere == f"{root}/scripts/run --doctor"
    assert hints.rtvoice("--doctor") == "./scripts/run --doctor"
    assert hints.rtvoice() == "./scripts/run"
    assert hints.install("pyaudio") == "./scripts/run --setup"
    assert hints.install("pywebrtc-audio") == "./scripts/run --setup"
    assert hints.install("python-socks") == f"{environment}/bin/python -m pip install python-socks"


@pytest.mark.usefixtures("root")
def test_in_an_active_environment_its_python_and_pip_are_named(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{environment}/bin", prepend=os.pathsep)

    assert hints.rtvoice("--doctor").startswith("python -m ")
    assert hints.install("pyaudio") == "pip install pyaudio"


@pytest.mark.usefixtures("root")
def test_in_an_environment_that_is_not_active_the_python_has_its_path(environment: Path) -> None:
    assert hints.rtvoice("--doctor").startswith(f"{environment}/bin/python -m ")
    assert hints.install("pyaudio") == f"{environment}/bin/python -m pip install pyaudio"


@pytest.mark.usefixtures("root")
def test_where_only_the_command_is_on_the_path_it_is_named(
    environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "usr" / "rtvoice").symlink_to(environment / "bin" / "rtvoice")

    assert hints.rtvoice("--doctor") == "rtvoice --doctor"


@pytest.mark.usefixtures("root")
def test_where_the_system_has_python3_alone_it_is_named(
    tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usr" / "python").unlink()
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/usr/python3")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)

    assert hints.rtvoice().startswith("python3 -m ")
    assert hints.install("pyaudio") == "python3 -m pip install pyaudio"


@pytest.mark.usefixtures("root", "environment")
@pytest.mark.parametrize("executable", [None, ""])
def test_a_program_without_an_interpreter_gets_a_hint_too(
    executable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)

    assert hints.rtvoice().startswith("python -m ")


def test_where_another_package_is_named_supervisor_ours_is_run_by_another_name(
    root: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "_SUPERVISOR", root / "supervisor.py")
    monkeypatch.setenv("PATH", f"{environment}/bin")

    assert hints.rtvoice() == "python -m rtvoice"


def test_the_command_that_is_named_here_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = subprocess.run(
        hints.rtvoice("--version"),
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rtvoice ")
