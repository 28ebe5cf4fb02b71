"""A PyAudio that fails on command, in ways that no virtual card can."""

from __future__ import annotations

import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

DEVICES = (
    ("Built-in Microphone", 2, 0),
    ("Built-in Speaker", 0, 2),
    ("USB Headset", 1, 2),
    ("Speaker of the Monitor", 0, 2),
)


def _ignore(*_: object) -> None:
    pass


class Stream:
    def __init__(
        self,
        callback: Callable[..., Any],
        rate: int,
        channels: int,
        unplugged: Callable[[], bool] = lambda: False,
    ) -> None:
        self.callback = callback
        self.unplugged = unplugged
        self.rate, self.channels = rate, channels
        self.active = False
        self.closed = False

    def call(
        self, data: bytes | None, frames: int, *, ahead_s: float = 0.04, status: int = 0
    ) -> tuple[bytes | None, int]:
        """Call back as PortAudio does."""
        times = {
            "current_time": 1000.0,
            "input_buffer_adc_time": 1000.0 - ahead_s,
            "output_buffer_dac_time": 1000.0 + ahead_s,
        }
        result: tuple[bytes | None, int] = self.callback(data, frames, times, status)
        return result

    def start_stream(self) -> None:
        self.active = True

    def stop_stream(self) -> None:
        self.active = False

    def is_active(self) -> bool:
        return self.active and not self.unplugged()

    def get_output_latency(self) -> float:
        return 0.04

    def close(self) -> None:
        self.closed = True


class FakePyAudio(types.ModuleType):
    """The module. ``refuse`` says which (rate, channels) do not open, ``error`` how;
    ``unplugged`` whether the devices in use are gone."""

    def __init__(
        self,
        devices: tuple[tuple[str, int, int], ...] = DEVICES,
        refuse: Callable[[int, int], bool] = lambda rate, channels: False,
        error: tuple[int, str] = (-9997, "Invalid sample rate"),
        unplugged: Callable[[], bool] = lambda: False,
        host_api: str = "Fake",
    ) -> None:
        super().__init__("pyaudio")
        self.__spec__ = ModuleSpec("pyaudio", None)
        self.devices = devices
        self.refuse = refuse
        self.error = error
        self.unplugged = unplugged
        self.streams: list[Stream] = []
        self.alive = 0
        module = self

        class PyAudio:
            def __init__(self) -> None:
                module.alive += 1

            def terminate(self) -> None:
                module.alive -= 1

            def get_host_api_count(self) -> int:
                return 1

            def get_host_api_info_by_index(self, index: int) -> dict[str, Any]:
                return {"name": host_api}

            def get_device_count(self) -> int:
                return len(module.devices)

            def get_device_info_by_index(self, index: int) -> dict[str, Any]:
                name, inputs, outputs = module.devices[index]
                return {
                    "index": index,
                    "name": name,
                    "hostApi": 0,
                    "maxInputChannels": inputs,
                    "maxOutputChannels": outputs,
                    "defaultSampleRate": 48_000.0,
                }

            def get_default_input_device_info(self) -> dict[str, Any]:
                return self._first("maxInputChannels")

            def get_default_output_device_info(self) -> dict[str, Any]:
                return self._first("maxOutputChannels")

            def is_format_supported(self, rate: float, **wanted: Any) -> bool:
                channels = next(n for name, n in wanted.items() if name.endswith("_channels"))
                if module.refuse(int(rate), channels):
                    raise ValueError("Invalid sample rate", -9997)
                return True

            def open(self, *, rate: int, channels: int, **options: Any) -> Stream:
                if module.refuse(rate, channels):
                    raise OSError(*module.error)
                callback = options.get("stream_callback", _ignore)
                stream = Stream(callback, rate, channels, module.unplugged)
                module.streams.append(stream)
                return stream

            def _first(self, key: str) -> dict[str, Any]:
                for index in range(len(module.devices)):
                    about = self.get_device_info_by_index(index)
                    if about[key]:
                        return about
                raise OSError("No Default Device Available")

        self.PyAudio = PyAudio
