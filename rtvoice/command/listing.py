"""``--list-devices``: prints the sound devices of this machine, as a table or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

import msgspec

from actors.devices.card.listing import SoundDevice, list_devices
from actors.devices.errors import SoundLibraryError
from messages.exit_codes import EXIT_OK, EXIT_USAGE
from rtvoice.command.printing import writing_to

__all__ = ["print_devices"]

_HOW = (
    "Choose with --input and --output, or RTVOICE_INPUT and RTVOICE_OUTPUT: an index or part of a "
    "name."
)
_NONE = (
    "There are no sound devices on this machine. Use --input silence or a WAV file, and --output "
    "null or a WAV file."
)
_HEAD = ("", "name", "host API", "in", "out", "default", "rates in kHz")
_NUMBERS = (0, 3, 4)
"""Indexes of the columns that are aligned to the right."""


def print_devices(out: TextIO | None = None, *, as_json: bool = False) -> int:
    """Print the sound devices; return the exit code."""
    out = sys.stdout if out is None else out
    write = writing_to(out)
    try:
        devices = list_devices(rates=True)
    except SoundLibraryError as error:
        sys.stderr.write(f"rtvoice: {error}.\n")
        return EXIT_USAGE
    if as_json:
        write(msgspec.json.format(msgspec.json.encode(devices)).decode() + "\n")
    elif not devices:
        write(f"{_NONE}\n")
    else:
        write("\n".join(_table(devices, bold=out.isatty())) + f"\n\n{_HOW}\n")
    return EXIT_OK


def _table(devices: Sequence[SoundDevice], *, bold: bool) -> list[str]:
    rows = [_HEAD, *map(_row, devices)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if bold:
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    return lines


def _row(device: SoundDevice) -> tuple[str, ...]:
    default = [
        name
        for name, is_it in (("in", device.default_input), ("out", device.default_output))
        if is_it
    ]
    return (
        str(device.index),
        " ".join(device.name.split()),
        device.host_api,
        str(device.input_channels or "-"),
        str(device.output_channels or "-"),
        ", ".join(default),
        _rates(device),
    )


def _rates(device: SoundDevice) -> str:
    recorded, played = _in_khz(device.input_rates), _in_khz(device.output_rates)
    both = device.input_channels and device.output_channels
    if both and recorded != played:
        return f"in: {recorded or 'none'}; out: {played or 'none'}"
    return recorded or played or "none: it is in use, or is not plugged in"


def _in_khz(rates: Sequence[int]) -> str:
    return " ".join(f"{rate / 1000:g}" for rate in rates)
