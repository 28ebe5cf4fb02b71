"""The files for deployment in docs/examples: whole, and with options that there are."""

from __future__ import annotations

import configparser
import inspect
import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rtvoice.command.serve import _parser
from rtvoice.service import Service
from rtvoice.testing import SandboxServer
from tests.listening import SHOP
from tests.test_command import ROOT
from tests.test_serve import Served

DEPLOYMENT = ROOT / "docs" / "examples" / "deployment"


def parsed(command: list[str]) -> Any:
    """Return the options of a command that serves."""
    assert command[0].rpartition("/")[2] == "rtvoice"
    assert command[1] == "serve"
    return _parser().parse_args(command[2:])


def drain_s(options: Any) -> float:
    """Return how long the service drains."""
    default = inspect.signature(Service.__init__).parameters["drain_s"].default
    return float(default if options.drain_s is None else options.drain_s)


def test_the_unit_of_systemd_lets_conversations_end() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOYMENT / "shop.service")
    service = unit["Service"]

    options = parsed(shlex.split(service["ExecStart"]))
    assert service.getint("TimeoutStopSec") > drain_s(options)
    assert service["KillMode"] == "mixed"  # else each component gets the signal too
    assert options.journals.endswith(service["StateDirectory"])
    assert set(unit) == {"DEFAULT", "Unit", "Service", "Install"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOYMENT / "shop.service").read_text(encoding="utf-8")
    (tmp_path / "shop.service").write_text(unit.replace("/srv/shop/venv/bin/rtvoice", "/bin/true"))

    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "shop.service")],
        capture_output=True,
        text=True,
        check=False,
    )

    of_the_unit = [line for line in done.stderr.splitlines() if "shop.service" in line]
    assert (done.returncode, of_the_unit) == (0, []), done.stderr


def commands() -> dict[str, list[str]]:
    """Return the command of each way to deploy."""
    yaml = pytest.importorskip("yaml")
    unit = (DEPLOYMENT / "shop.service").read_text(encoding="utf-8")
    image = (DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8")
    manifest = (DEPLOYMENT / "kubernetes.yaml").read_text(encoding="utf-8")
    pod = next(yaml.safe_load_all(manifest))["spec"]["template"]["spec"]
    return {
        "systemd": shlex.split(unit.partition("ExecStart=")[2].partition("\n")[0]),
        "docker": json.loads(image.partition("CMD ")[2]),
        "kubernetes": pod["containers"][0]["args"],
    }


@pytest.mark.parametrize("way", ["systemd", "docker", "kubernetes"])
def test_the_command_of_each_way_to_deploy_serves_and_ends_with_a_signal(
    way: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    options = commands()[way][3:]
    for flag, value in (("--port", "0"), ("--journals", "journals"), ("--host", "127.0.0.1")):
        if flag in options:
            options[options.index(flag) + 1] = value

    with SandboxServer() as sandbox, Served(tmp_path, sandbox, *options) as served:
        ready = served.get("/readyz")[0]
        served.process.send_signal(signal.SIGTERM)
        code, _ = served.end()

    assert (ready, code) == (200, 0)


def test_the_image_passes_signals_on() -> None:
    text = (DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = dict(line.split(" ", 1) for line in lines)

    assert set(found) <= {"FROM", "RUN", "USER", "WORKDIR", "COPY", "EXPOSE", "ENTRYPOINT", "CMD"}
    assert json.loads(found["ENTRYPOINT"]) == ["tini", "--"]
    options = parsed(json.loads(found["CMD"]))  # as a list: a shell would keep the signal
    assert options.port == found["EXPOSE"]
    assert options.host == "0.0.0.0"


def test_the_manifest_for_kubernetes_fits_the_service() -> None:
    yaml = pytest.importorskip("yaml")
    text = (DEPLOYMENT / "kubernetes.yaml").read_text(encoding="utf-8")
    deployment, service = yaml.safe_load_all(text)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    options = parsed(container["args"])
    assert pod["terminationGracePeriodSeconds"] > drain_s(options)
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["ports"][0]["containerPort"] == int(options.port)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels


def test_the_manifest_for_kubernetes_fits_the_fleet() -> None:
    """It is parsed, and its options are those that there are; it was never applied."""
    from rtvoice.command.fleet import _parser as parser_of_the_fleet
    from rtvoice.fleet.process import HostOptions

    yaml = pytest.importorskip("yaml")
    text = (DEPLOYMENT / "fleet.yaml").read_text(encoding="utf-8")
    hosts, of_hosts, gateway, _ = yaml.safe_load_all(text)
    pod = hosts["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    options = msgspec.json.decode(container["args"][0], type=HostOptions)
    assert container["command"] == ["python", "-m", "rtvoice.fleet.process"]
    variables = {each["name"] for each in container["env"]}
    assert set(re.findall(r"\$\((\w+)\)", container["args"][0])) <= variables
    assert pod["terminationGracePeriodSeconds"] > options.drain_s
    assert container["ports"][0]["containerPort"] == options.port
    assert hosts["spec"]["serviceName"] == of_hosts["metadata"]["name"]
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    words = container["args"]
    assert words[:2] == ["rtvoice", "fleet"]
    given = parser_of_the_fleet().parse_args(words[2:])
    assert (given.engine, int(given.port)) == ("none", container["ports"][0]["containerPort"])


def registered() -> dict[str, set[str]]:
    """Return the names of the labels of each metric of the service, by the metric's name."""
    from prometheus_client.metrics import MetricWrapperBase

    from rtvoice.service.metrics import Metrics

    found = {}
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = set(metric._labelnames)
    return found


def test_the_metrics_that_the_guide_names_are_there() -> None:
    guide = (ROOT / "docs/guide/service.md").read_text(encoding="utf-8")

    assert set(re.findall(r"`(rtvoice_\w+)", guide)) == set(registered())


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    board = json.loads((DEPLOYMENT / "grafana.json").read_text(encoding="utf-8"))
    targets = [target for panel in board["panels"] for target in panel.get("targets", ())]
    metrics, shown = registered(), set()

    for target in targets:
        name, of_histogram = re.search(r"(rtvoice_\w+?)(_bucket)?\{", target["expr"]).groups()  # type: ignore[union-attr]
        shown.add(name)
        labels = {*metrics.get(name, ()), "instance"} | ({"le"} if of_histogram else set())
        grouped = re.search(r"sum by \(([\w, ]+)\)", target["expr"])
        by = set(grouped[1].split(", ")) if grouped else {"instance"}
        assert by <= labels, target["expr"]
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= by, target["legendFormat"]

    assert shown == set(metrics)


def test_no_two_panels_of_the_dashboard_lie_on_each_other() -> None:
    board = json.loads((DEPLOYMENT / "grafana.json").read_text(encoding="utf-8"))
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))  # the width of a dashboard
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
