"""Runs the sandbox process: what it prints, its warm-up and its end."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import socket
import sys
import threading
import time
from contextlib import aclosing
from pathlib import Path
from typing import Final, NoReturn

from messages.hints import install
from rtvoice.sandbox import speak
from rtvoice.sandbox.listen import ListenerDiedError, RecogniserPool
from rtvoice.sandbox.phrases import printed_list
from rtvoice.sandbox.server import Sandbox, listen_on
from rtvoice.sandbox.speak import Synthesizer, choose_voice

__all__ = ["run"]

_GRACE_S: Final = 1.0
"""Time to end after the end of stdin; then a stuck event loop is killed."""


def run(listening: socket.socket, options: argparse.Namespace) -> NoReturn:
    """Serve on a socket until a signal or the end of stdin, then end the process (exit code 0)."""
    asyncio.run(_serve(listening, options))
    raise AssertionError("_serve ends the process")


async def _serve(listening: socket.socket, options: argparse.Namespace) -> NoReturn:
    listener = RecogniserPool(wanted=os.environ.get("RTVOICE_SANDBOX_LISTEN") != "none")
    voice = choose_voice(builtin=os.environ.get("RTVOICE_SANDBOX_VOICE") == "builtin")
    sandbox = Sandbox(
        listener,
        voice,
        pace=options.pace,
        max_session_s=options.max_session,
        faults=options.misbehave,
    )
    ended = asyncio.Event()
    _end_on_signals(ended)
    if options.until_eof:
        _end_at_eof(ended)
    async with await listen_on(sandbox, sock=listening):
        _print_welcome(listener, voice, listening.getsockname()[0])
        warming = asyncio.create_task(_warm(listener, voice))
        await ended.wait()
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)
    await listener.close()
    # A normal exit would wait for an import on a thread of the warm-up; there is nothing to save.
    sys.stdout.flush()
    os._exit(0)


def _end_on_signals(ended: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        if sys.platform == "win32":
            signal.signal(name, lambda *_: loop.call_soon_threadsafe(ended.set))
        else:
            loop.add_signal_handler(name, ended.set)


def _end_at_eof(ended: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def wait_for_eof() -> None:
        # Not sys.stdin: a thread that waits in its lock makes the interpreter crash at its end.
        while _read_some():
            pass
        try:
            loop.call_soon_threadsafe(ended.set)
        except RuntimeError:
            return
        time.sleep(_GRACE_S)
        os._exit(0)

    threading.Thread(target=wait_for_eof, name="until eof", daemon=True).start()


def _read_some() -> bytes:
    try:
        return os.read(0, 4096)
    except OSError:
        return b""


async def _warm(listener: RecogniserPool, voice: Synthesizer) -> None:
    """Load what the first turn needs, so that it is as fast as later turns."""
    await asyncio.gather(_warm_listener(listener), _warm_voice(voice))


async def _warm_listener(listener: RecogniserPool) -> None:
    began = time.monotonic()
    try:
        await listener.warm()
    except ListenerDiedError:
        listener.available = False
        sys.stderr.write("the recogniser did not start: speech is only measured\n")
    else:
        if listener.available:
            _print(f"recogniser ready after {time.monotonic() - began:.2f} s")


async def _warm_voice(voice: Synthesizer) -> None:
    await asyncio.to_thread(_import_slow_modules)
    async with aclosing(voice.say("Hello.", "alloy", 1.0)) as sound:
        async for _ in sound:
            pass


def _import_slow_modules() -> None:
    for name in ("actors.devices.sound.resample", "rtvoice.sandbox.vad"):
        importlib.import_module(name)


def _print_welcome(listener: RecogniserPool, voice: Synthesizer, host: str) -> None:
    lines = ["", "It understands, spoken or typed:", *(f"  {line}" for line in printed_list()), ""]
    lines.append(_listener_line(listener))
    lines.append(_voice_line(voice))
    if host not in ("127.0.0.1", "::1"):
        lines.append(f"Careful: {host} can be reached by others, and the sandbox requires no key.")
    _print("\n".join(lines))


def _listener_line(listener: RecogniserPool) -> str:
    if listener.available:
        return "recogniser: pocketsphinx"
    if os.environ.get("RTVOICE_SANDBOX_LISTEN") == "none":
        return "recogniser: none (RTVOICE_SANDBOX_LISTEN=none)"
    return (
        f"recogniser: none, so speech is only measured. To install one: {install('pocketsphinx')}"
    )


def _voice_line(voice: Synthesizer) -> str:
    if voice.name == "espeak-ng":
        return "voice: espeak-ng"
    if os.environ.get("RTVOICE_SANDBOX_VOICE") == "builtin":
        return "voice: tones (RTVOICE_SANDBOX_VOICE=builtin)"
    return f"voice: tones. To install a voice: {speak.INSTALL}"


def _print(text: str) -> None:
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        # The reader has closed the pipe. Without this, the interpreter reports an error at its end.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
