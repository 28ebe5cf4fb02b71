"""Run the fleet on a Ray cluster of this machine: a head and two nodes. Break it, say what happens.

    python scripts/fleet_on_ray.py                       each fault once
    python scripts/fleet_on_ray.py raylet --runs 5       only this one: host raylet node head
    python scripts/fleet_on_ray.py head --watch 300      watch the calls for five minutes

A cluster takes up to a minute to come up, and does not always at the first try: it is tried three
times, each for 150 s at most. Needs the extras ray, service and postgres, and Postgres' programs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rtvoice.fleet.owner import is_dead  # noqa: E402
from rtvoice.fleet.process import HostOptions  # noqa: E402
from rtvoice.fleet.ray_engine import RayEngine  # noqa: E402
from rtvoice.fleet.store import FRESH_S  # noqa: E402
from tests.fake_server import FakeServer  # noqa: E402
from tests.postgres import running  # noqa: E402
from tests.rtvoice.fleet.rig import MARK, Caller, Rig, kill, until  # noqa: E402

__all__ = ["FAULTS", "Cluster", "NoClusterError", "run"]

_UP_S = 150.0
_TRIES = 3
TTL_S = 2.0
APPEND = "input_audio_buffer.append"
FAULTS = ("host", "raylet", "node", "head")
_CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster

health = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
shared = dict(object_store_memory=80_000_000)
cluster = Cluster(initialize_head=True, head_node_args=dict(
    num_cpus=0, _system_config=health, include_dashboard=False, **shared))
nodes = [cluster.head_node, *(cluster.add_node(num_cpus=1, **shared) for _ in range(2))]
print(json.dumps({"address": cluster.address, "nodes": [
    {name: [each.process.pid for each in processes] for name, processes in
     node.all_processes.items()} for node in nodes]}), flush=True)
sys.stdin.read()
cluster.shutdown()
"""
"""A head without cores, so that no host is there, and two nodes with one core each."""


class NoClusterError(Exception):
    """The cluster does not come up here."""


class Cluster:
    """A Ray cluster on loopback, in a process of its own; ends with it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            text=True,
        )
        self.address = ""
        self.nodes: list[dict[str, list[int]]] = []
        """The processes of the head and of both nodes, by what they are."""

    async def up(self) -> None:
        """Wait until it is up.

        Raises:
            NoClusterError: It does not come up.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_UP_S):
                line = await asyncio.to_thread(self._process.stdout.readline)
            found = json.loads(line)
        except (TimeoutError, ValueError):
            self.close()
            raise NoClusterError(f"no cluster of Ray came up within {_UP_S:g} s") from None
        self.address, self.nodes = found["address"], found["nodes"]

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        kill(*(pid for node in self.nodes for pids in node.values() for pid in pids))


@contextlib.contextmanager
def _environment(server: FakeServer) -> Iterator[dict[str, str]]:
    before = dict(os.environ)
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_DISABLE_METRICS_COLLECTION="1",
        PYTHONPATH=str(ROOT),
        OPENAI_API_KEY="sk-none",
        RTVOICE_SERVER=server.url,
        **{MARK: f"{os.getpid()}-{time.time_ns()}"},
    )
    try:
        yield dict(os.environ)
    finally:
        os.environ.clear()
        os.environ.update(before)


class RayRig(Rig):
    """The rig of the tests, with hosts in a cluster."""

    def __init__(self, folder: Path, url: str, server: FakeServer, address: str) -> None:
        super().__init__(folder, url, server)
        agent = f"{folder / 'agent.py'}:make_agent"
        options = HostOptions(name="", store=url, agent=agent, ttl_s=TTL_S, cpu_limit=None)
        self.engine = RayEngine(self.store, options, count=2, address=address)  # type: ignore[assignment]


async def _fault(what: str, rig: Rig, cluster: Cluster, caller: Caller, watch_s: float) -> str:
    """Break something; return what happened."""
    before = await asyncio.to_thread(rig.connection, 0)
    await asyncio.to_thread(before.expect, APPEND)
    host = await rig.host(caller.session_id)
    node = _node_of(cluster, host.name, rig)
    began = time.monotonic()
    if what == "host":
        kill(rig.pid(host))
    elif what == "raylet":
        kill(*cluster.nodes[node]["raylet"])
    elif what == "head":
        kill(*(pid for pids in cluster.nodes[0].values() for pid in pids))
    else:  # all processes of the machine; on one with another boot id nobody could prove it
        kill(*cluster.nodes[node]["raylet"], *rig.tree(host))
    if what in ("host", "node"):
        await rig.taken(caller.session_id, 1)
        taken_s = time.monotonic() - began
        after = await asyncio.to_thread(rig.connection, 1)
        await asyncio.to_thread(after.expect, APPEND)
        sent = len(before.of(APPEND))
        await asyncio.sleep(1)
        assert len(before.of(APPEND)) == sent, "the old copy speaks"
        again_s = await _whole(rig, 2)
        return f"taken after {taken_s:.2f} s; two hosts again after {again_s:.1f} s"
    end = began + watch_s
    while time.monotonic() < end:
        sent = len(before.of(APPEND))
        await asyncio.sleep(1)
        row = await rig.row(caller.session_id)
        assert (row.epoch, row.ended) == (1, None), row
        assert len(before.of(APPEND)) > sent, "nothing is sent any more"
        assert caller.codes == [], caller.codes
    return f"the call went on for {watch_s:g} s, and nobody else took it"


def _node_of(cluster: Cluster, name: str, rig: Rig) -> int:
    """Return which node keeps a host: that of its keeper's raylet."""
    program = (
        "import json, sys, os, ray; ray.init(sys.argv[1], logging_level='ERROR', "
        " log_to_driver=False, namespace='rtvoice-fleet');"
        "from ray._private.state import actors; found = actors();"
        "print(json.dumps({each['Name']: each['Address']['NodeID'] for each in found.values()"
        " if each['State'] == 'ALIVE'} | {'nodes': {n['NodeID']: n['NodeManagerPort'] for n in"
        " ray.nodes()}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, cluster.address], stdout=subprocess.PIPE, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    port = str(found["nodes"][found[name]])
    for number, node in enumerate(cluster.nodes):
        for pid in node["raylet"]:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(port.encode() in word for word in command) or _listens(pid, port):
                return number
    raise AssertionError(f"no node has the port {port}")


def _listens(pid: int, port: str) -> bool:
    wanted = f":{int(port):04X}"
    sockets = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(str(path.readlink()).removeprefix("socket:[").removesuffix("]"))
    for kind in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(wanted) and fields[9] in sockets:
                return True
    return False


async def _whole(rig: Rig, count: int, timeout_s: float = 60.0) -> float:
    """Wait until there are as many hosts as are wanted; return how long it took."""
    began = time.monotonic()
    await until(
        lambda: (
            sum(row.age_s < FRESH_S and not is_dead(row.owner) for row in rig.store.hosts())
            >= count
        ),
        "the hosts are not started again",
        timeout_s,
    )
    return time.monotonic() - began


async def run(what: str, watch_s: float = 10.0) -> str:
    """Bring a cluster up and a fleet in it, and break something; return what happened.

    Raises:
        NoClusterError: No cluster came up.
    """
    with (
        FakeServer() as server,
        _environment(server) as environment,
        tempfile.TemporaryDirectory(prefix="rtv-ray-", dir="/tmp") as folder,
        running() as postgres,
    ):
        cluster = await _cluster(environment)
        try:
            rig = RayRig(Path(folder), postgres.url, server, cluster.address)
            async with rig.running():
                caller = await rig.call()
                try:
                    return await _fault(what, rig, cluster, caller, watch_s)
                finally:
                    await caller.hang_up()
        finally:
            cluster.close()


async def _cluster(environment: dict[str, str]) -> Cluster:
    for number in range(_TRIES):
        cluster = Cluster(environment)
        try:
            await cluster.up()
        except NoClusterError:
            if number == _TRIES - 1:
                raise
        else:
            return cluster
    raise AssertionError


def main() -> None:
    """Run the faults that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", help=f"any of {', '.join(FAULTS)}; default: all")
    parser.add_argument("--runs", type=int, default=1, help="runs of each (1)")
    parser.add_argument("--watch", type=float, default=30.0, help="how long calls are watched (30)")
    given = parser.parse_args()
    if unknown := set(given.what) - set(FAULTS):
        parser.error(f"{unknown.pop()!r} is no fault; give any of {', '.join(FAULTS)}")
    for what in given.what or FAULTS:
        for _ in range(given.runs):
            began = time.monotonic()
            found: Any = asyncio.run(run(what, given.watch))
            print(f"{what}: {found} ({time.monotonic() - began:.0f} s in all)", flush=True)


if __name__ == "__main__":
    main()
