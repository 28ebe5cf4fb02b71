"""What runs in a Ray cluster: a keeper for each host, and a controller of their number.

``python -m rtvoice.fleet.ray_actors start|stop ADDRESS WISH`` makes them, and ends them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import os
import subprocess
import sys
import threading
import time
from typing import Any

from rtvoice.fleet.engine import environment_of_a_host
from rtvoice.fleet.opening import open_store
from rtvoice.fleet.owner import is_dead, is_here
from rtvoice.fleet.store import FRESH_S, Store, StoreError

__all__ = ["Controller", "Keeper", "main"]

_logger = logging.getLogger("rtvoice.fleet")

ray: Any = importlib.import_module("ray")  # its types differ from version to version

NAMESPACE = "rtvoice-fleet"
_CONTROLLER = "controller"
_LOOK_S = 0.5
_AGAIN_S = 2.0
"""How long a host that was started may take to report itself before it is started again, if its
process is gone."""


class Keeper:
    """Starts a host on the machine where it runs itself, and again when the host is gone.

    The host is no child of Ray's worker, and outlives it. A keeper that Ray has restarted, here or
    on another machine, leaves the host alone that it finds in the store.

    Args:
        options: `HostOptions` as plain data.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._store: Store | None = None
        self._started: tuple[str, float] | None = None
        """The process that was started last, as an owner, and when."""
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                self._look()
            time.sleep(_LOOK_S)

    def _look(self) -> None:
        if self._store is None:
            self._store = open_store(self._options["store"])
        for row in self._store.hosts():
            if row.name != self._options["name"] or is_dead(row.owner):
                continue
            if row.age_s < FRESH_S or is_here(row.owner):
                return
        if self._started is not None:
            owner, at = self._started
            if not is_dead(owner) or time.monotonic() - at < _AGAIN_S:
                return
        self._start()

    def _start(self) -> None:
        address = ray.util.get_node_ip_address()
        options = {**self._options, "listen": address}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "rtvoice.fleet.process", "--detach", json.dumps(options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=environment_of_a_host(),
            check=False,
        )
        self._started = done.stdout.decode().strip(), time.monotonic()


class Controller:
    """Sees to it that there are as many keepers as are wanted.

    Args:
        options: `HostOptions` of each host as plain data, but for its name.
        count: How many hosts.
        cpus: How many cores each reserves.
    """

    def __init__(self, options: dict[str, Any], count: int, cpus: float) -> None:
        self._options = options
        self._names = [f"host-{number}" for number in range(1, count + 1)]
        self._cpus = cpus
        threading.Thread(target=self._run, daemon=True).start()

    def names(self) -> list[str]:
        """Return the names of the hosts."""
        return self._names

    def _run(self) -> None:
        while True:
            try:
                self._look()
            except Exception:  # of Ray's head, which may be away
                _logger.exception("the hosts cannot be looked at")
            time.sleep(_LOOK_S)

    def _look(self) -> None:
        running = keepers()
        for name in self._names:
            options = {**self._options, "name": name}
            if name in running:
                continue
            ray.remote(Keeper).options(
                name=name,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                max_task_retries=-1,
                num_cpus=self._cpus,
                scheduling_strategy="SPREAD",
            ).remote(options)
        for name in running - set(self._names):
            end(name)


def keepers() -> set[str]:
    """Return the names of the keepers that there are."""
    found = ray.util.list_named_actors(all_namespaces=True)
    ours = {each["name"] for each in found if each["namespace"] == NAMESPACE}
    return ours - {_CONTROLLER}


def end(name: str) -> None:
    """End an actor for good. The host of a keeper goes on."""
    with contextlib.suppress(ValueError):  # it is gone
        ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)


def start(wish: dict[str, Any]) -> dict[str, Any]:
    """Make the controller, which makes the keepers; return the names of the hosts."""
    cpus = wish["cpus"]
    cores = ray.cluster_resources().get("CPU", 1.0)
    count = wish["count"] or max(1, math.floor(cores / cpus) if cpus else math.floor(cores))
    end(_CONTROLLER)
    for name in keepers():  # with what they were told before; their hosts go on
        end(name)
    controller = (
        ray.remote(Controller)
        .options(
            name=_CONTROLLER,
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=-1,
            num_cpus=0,
        )
        .remote(wish["options"], count, cpus)
    )
    return {"names": ray.get(controller.names.remote())}


def stop() -> dict[str, Any]:
    """End the controller and the keepers."""
    end(_CONTROLLER)
    for name in keepers():
        end(name)
    return {}


def main() -> None:
    """Do with a cluster what the command line says; print what came of it as JSON."""
    what, address, wish = sys.argv[1:]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address, namespace=NAMESPACE, logging_level="ERROR", log_to_driver=False)
        found = start(json.loads(wish)) if what == "start" else stop()
    except Exception as error:  # noqa: BLE001 - of Ray, which has many; the caller shows the sentence
        text = " ".join(str(error).split()) or type(error).__name__
        sys.stderr.write(f"{text}\n")
        sys.exit(1)
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Its classes shall be those of the module, not of ``__main__``: the workers import them.
    from rtvoice.fleet import ray_actors  # noqa: PLW0406 - that is the point

    ray_actors.main()
