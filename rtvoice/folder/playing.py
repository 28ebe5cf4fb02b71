"""Plays a recording on an output device, in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from actors.devices.opening import open_playback
from actors.devices.playout import Playout
from messages import SessionInfo, Settings

__all__ = ["play"]

_STEP_S = 0.05


def play(pcm: bytes, output: str, tick: Callable[[float], None]) -> None:
    """Play sound to its end.

    Args:
        pcm: 16-bit mono PCM at 24 kHz.
        output: The device, as ``--output`` names it.
        tick: Called twenty times a second with the seconds since the beginning.

    Raises:
        DeviceError: The device cannot be opened, or is lost.
    """
    now_ns = time.monotonic_ns()
    settings = Settings(input="silence", output=output)
    device = open_playback(settings, SessionInfo(epoch_ns=now_ns, directory=""))
    playout = Playout(device.prefill_ms * 24)
    failed: list[Exception] = []
    woken = threading.Event()
    playout.attach(woken.set)
    playout.push("recording", 0, pcm, last=True)
    try:
        device.start(playout, failed.append)
        began = time.monotonic()
        while not failed and playout.left_ns(time.monotonic_ns()) is not None:
            tick(time.monotonic() - began)
            now_ns = time.monotonic_ns()
            _, wait_s = device.pump(now_ns)
            if device.check_s is not None:
                device.check(now_ns)
            playout.settle(device.heard_until(now_ns))
            woken.wait(_STEP_S if wait_s is None else min(wait_s, _STEP_S))
            woken.clear()
    finally:
        device.close()
    if failed:
        raise failed[0]
