"""The service needs an extra; nothing else does."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("uvicorn", "prometheus_client", "opentelemetry"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import importlib.util
found = importlib.util.find_spec
def find_spec(name, package=None):
    try:
        return found(name, package)
    except ModuleNotFoundError:
        return None
importlib.util.find_spec = find_spec
"""


@pytest.mark.parametrize(
    ("code", "exit_code", "says"),
    [
        ("import rtvoice; rtvoice.__all__; rtvoice.Agent(); print('fine')", 0, "fine"),
        ("import rtvoice.service", 1, "rtvoice.service needs a package: "),
        (
            "from rtvoice.command.cli import run; sys.exit(run(['serve', 'shop.py:make_agent']))",
            2,
            "rtvoice: uvicorn is not installed: ",
        ),
    ],
)
def test_without_the_extra_only_the_service_says_what_to_install(
    code: str, exit_code: int, says: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False
    )

    said = done.stdout + done.stderr
    assert done.returncode == exit_code, said
    assert says in said
    assert exit_code == 0 or "install 'rtvoice[service]'" in said
