"""The sandbox server as a child process of the supervisor; it is not a component."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from actors.supervision.hub import Hub
from actors.supervision.lifecycle import MORE_TIME
from actors.supervision.process import Process
from actors.supervision.restarting import RestartPolicy
from messages import Notice
from messages.transport.loop import watch_text

__all__ = ["SandboxChild"]


class SandboxChild:
    """The Realtime server on loopback, in a process that ends with the supervisor.

    If it ends before it listens, the session cannot start; later, it is restarted on the same port.
    """

    _LISTENING = "listening on "

    def __init__(self, hub: Hub) -> None:
        self.url = ""
        """URL at which it listens; empty: not yet."""
        self._hub = hub
        self._said = ""
        self._since = time.monotonic()
        self._policy = RestartPolicy()
        self._process: Process | None = None
        self._launch(port=0)

    @property
    def pid(self) -> int:
        """The process id; 0: no process runs."""
        return self._process.pid if self._process is not None else 0

    def close(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.connection.close()
        self._process.kill()
        self._process.wait()

    def _launch(self, port: int) -> None:
        if self._hub.stage.is_last:
            return
        # It ends at the end of its standard input, which is our end of the socket.
        arguments = ["rtvoice.sandbox", "--until-eof", "--port", str(port)]
        try:
            process = Process(arguments, self._hub.environment_of("sandbox"), forked=False)
        except OSError as error:
            why = f"no process can be started: {error}"
            if not self.url:
                self._hub.loop.later(0, lambda: self._hub.start_failed("sandbox", why, ""))
            else:
                self._hub.log("sandbox", "WARNING", why)
                self._hub.loop.later(RestartPolicy.MAX_DELAY_S, lambda: self._launch(port))
            return
        self._process = process
        watch_text(self._hub.loop, process.stderr, self._line)
        self._check(process)

    def _line(self, line: str) -> None:
        self._said = line
        if not line.startswith(self._LISTENING):
            self._hub.log("sandbox", "INFO" if self.url else "WARNING", line)
            return
        first = not self.url
        self.url = line.removeprefix(self._LISTENING).strip()
        if first:
            self._hub.open_next()

    def _check(self, process: Process) -> None:
        if self._hub.stage.is_last:
            return
        start_s = self._hub.settings.start_s
        if not self.url and time.monotonic() - self._since > start_s:
            why = f"it does not listen after {start_s:g} s"
            why = f"{why}: {self._said}" if self._said else f"{why}; {MORE_TIME}"
            self._hub.start_failed("sandbox", why, "")
        elif not process.ended():
            self._hub.loop.later(0.1, lambda: self._check(process))
        elif not self.url:
            self._hub.start_failed("sandbox", self._said or "the sandbox has ended", "")
        else:
            process.connection.close()
            self._process = None
            delay = self._policy.crashed(time.monotonic(), progress=False)
            wait_s = self._policy.parked() if delay is None else delay
            self._hub.publish(Notice("the sandbox server has ended; starting it again"))
            self._hub.loop.later(wait_s, lambda: self._launch(urlsplit(self.url).port or 0))
