"""The probe: lists or opens PortAudio's devices in a process that may crash, hang or write noise.

Each request runs in a new process, because PortAudio lists the devices once. It is run as a file,
``python -S probe.py REQUEST``, and imports nothing of this project, so that it costs only 30 ms. It
writes its answer as JSON; instead of a list, a text gives the reason for its failure.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["about_all", "answer", "default_of"]

_RATES = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000)
_INT16 = 8  # portaudio.h
_DIRECTIONS = ("input", "output")


def about_all(audio: Any) -> Iterator[dict[str, Any]]:
    """Yield each device as the fields of `actors.devices.card.listing.SoundDevice`."""
    first = {direction: default_of(audio, direction) for direction in _DIRECTIONS}
    for index in range(audio.get_device_count()):
        try:
            about = audio.get_device_info_by_index(index)
            host_api = audio.get_host_api_info_by_index(int(about["hostApi"]))["name"]
        except OSError:
            continue
        yield {
            "index": index,
            "name": str(about["name"]),
            "host_api": str(host_api),
            "input_channels": int(about["maxInputChannels"]),
            "output_channels": int(about["maxOutputChannels"]),
            "rate": int(about["defaultSampleRate"]),
            "default_input": index == first["input"],
            "default_output": index == first["output"],
        }


def default_of(audio: Any, direction: str) -> int:
    """Return the index of the default device in a direction; -1: there is none."""
    try:
        return int(getattr(audio, f"get_default_{direction}_device_info")()["index"])
    except OSError:
        return -1


def answer(request: dict[str, Any]) -> Any:
    """Answer a request.

    Args:
        request: With ``open`` (index, direction, rate, channels): open this device and close it.
            Otherwise list the devices; with ``rates``, also the sample rates that they support.

    Returns:
        The devices; None if the device has opened; or a text, the reason for the failure.
    """
    try:
        import pyaudio
    except ImportError as error:
        if error.name == "pyaudio":
            return "PyAudio is not installed"
        return f"PyAudio does not load ({error})"
    try:
        audio = pyaudio.PyAudio()
    except OSError as error:
        return f"PortAudio does not start ({error})"
    try:
        if "open" in request:
            return _open(audio, *request["open"])
        devices = list(about_all(audio))
        if request.get("rates"):
            for device in devices:
                for direction in _DIRECTIONS:
                    device[f"{direction}_rates"] = _rates(audio, device, direction)
        return devices
    finally:
        audio.terminate()


def _rates(audio: Any, device: dict[str, Any], direction: str) -> list[int]:
    channels = min(device[f"{direction}_channels"], 2)
    wanted = {
        f"{direction}_device": device["index"],
        f"{direction}_channels": channels,
        f"{direction}_format": _INT16,
    }
    return [rate for rate in _RATES if channels and _takes(audio, rate, wanted)]


def _takes(audio: Any, rate: int, wanted: dict[str, Any]) -> bool:
    try:
        return bool(audio.is_format_supported(rate, **wanted))
    except (OSError, ValueError):
        return False


def _open(audio: Any, index: int, direction: str, rate: int, channels: int) -> str | None:
    try:
        audio.open(
            rate=rate,
            channels=channels,
            format=_INT16,
            frames_per_buffer=rate // 50,
            start=False,
            **{direction: True, f"{direction}_device_index": index},
        ).close()
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return None


if __name__ == "__main__":
    _request = json.loads(sys.argv[1])
    sys.path[:] = _request["path"]
    _found = json.dumps(answer(_request))
    sys.stdout.write(_found)
