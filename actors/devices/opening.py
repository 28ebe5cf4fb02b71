"""Opens the device that a setting names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from actors.devices.base import Capture, Playback
from actors.devices.echo.choice import why_not
from actors.devices.errors import UnwritableFileError
from actors.devices.units import block_samples
from actors.files import path_of, same_file
from messages import SessionInfo, Settings

__all__ = [
    "is_card",
    "is_file",
    "is_name",
    "open_capture",
    "open_playback",
    "refuse_as_output",
    "why_not_instead",
]

_NOTHING = ("silence", "null")
_NAME = re.compile(r"(?P<place>.+\.py|[A-Za-z_][\w.]*):(?P<attribute>[A-Za-z_][\w.]*)")
_FILES = (
    *(".wav", ".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64"),
    *(".pcm", ".raw"),
)


def is_file(setting: str) -> bool:
    """Return whether a device setting names a file: it looks like a path, or the file exists."""
    if setting.strip().lower() in (*_NOTHING, "program") or is_name(setting):
        return False
    separators = [mark for mark in (os.sep, os.altsep) if mark]
    looks_like_one = setting.lower().endswith(_FILES) or any(mark in setting for mark in separators)
    return looks_like_one or path_of(setting).is_file()


def is_card(setting: str) -> bool:
    """Return whether a device setting names a sound card, or would be one if there were one."""
    wanted = setting.strip().lower() or "default"
    return wanted not in (*_NOTHING, "program") and not is_name(setting) and not is_file(setting)


def why_not_instead(device: str, current: str) -> str:
    """Return why a device cannot take the place of another one in a session; empty: it can.

    Only sound cards can: files, silence and devices of the program belong to the whole session.
    """
    if not is_card(current):
        return f"{current} is not a sound card, and cannot be replaced during a conversation"
    if not is_card(device):
        return f"{device} is not a sound card"
    return ""


def is_name(setting: str) -> bool:
    """Return whether a device setting has the form ``module:attr`` or ``file.py:attr``."""
    return _NAME.fullmatch(setting) is not None


def _no_matter(_: Exception) -> None:
    pass


def open_capture(
    settings: Settings,
    session: SessionInfo,
    position: int = 0,
    stuck: Callable[[Exception], None] = _no_matter,
) -> Capture:
    """Open the input device that ``settings.input`` names.

    Args:
        settings: The settings of the session.
        session: The session.
        position: Where to continue in a file, in samples of 24 kHz.
        stuck: Called, on another thread, when a sound card does not answer.

    Raises:
        DeviceError: If the device cannot be opened.
    """
    wanted = settings.input.strip() or "default"
    block = block_samples(settings)
    if wanted.lower() in _NOTHING:
        from actors.devices.silence import SilenceCapture

        return SilenceCapture(block_samples(settings, paced=True))
    if wanted.lower() == "program":
        from actors.devices.own.program import ProgramInput

        return ProgramInput(block, rate=settings.program_input_rate, goes_on=not session.first)
    if is_name(wanted):
        from actors.devices.own.named import load_capture

        return load_capture(wanted, block)
    if is_file(wanted):
        from actors.devices.sound.files import FileCapture

        return FileCapture(path_of(wanted), block_samples(settings, paced=True), position)
    from actors.devices.card.card import CardKind, open_card
    from actors.devices.card.portaudio import PortAudioCapture
    from actors.devices.silence import SilenceCapture

    def samples(microphone: str) -> int:
        cards = is_card(settings.output)
        return block_samples(settings, cancels=not why_not(settings, microphone, cards=cards))

    kind = CardKind[Capture](
        "input",
        lambda name, known: PortAudioCapture(name, samples, known),
        lambda _: SilenceCapture(block),
    )
    return open_card(wanted, session, kind, stuck)


def open_playback(
    settings: Settings,
    session: SessionInfo,
    stuck: Callable[[Exception], None] = _no_matter,
) -> Playback:
    """Open the output device that ``settings.output`` names.

    Args:
        settings: The settings of the session.
        session: The session.
        stuck: Called, on another thread, when a sound card does not answer.

    Raises:
        DeviceError: If the device cannot be opened.
    """
    wanted = settings.output.strip() or "default"
    if wanted.lower() in _NOTHING:
        from actors.devices.silence import NullPlayback

        return NullPlayback()
    if wanted.lower() == "program":
        from actors.devices.own.program import ProgramOutput

        return ProgramOutput(settings.program_output_rate, scales=settings.program_output_scales)
    if is_name(wanted):
        from actors.devices.own.named import load_playback

        return load_playback(wanted)
    if is_file(wanted):
        from actors.devices.sound.files import FilePlayback

        path = path_of(wanted)
        refuse_as_output(path, settings)
        return FilePlayback(path, session)
    from actors.devices.card.card import CardKind, open_card
    from actors.devices.card.portaudio import PortAudioPlayback
    from actors.devices.silence import NoPlayback, NullPlayback

    told = None
    if settings.echo_cancelling != "off" and is_card(settings.input) and session.directory:
        told = session.file(".")
    kind = CardKind[Playback](
        "output",
        lambda name, known: PortAudioPlayback(name, known, told),
        lambda had_one: NoPlayback() if had_one else NullPlayback(),
    )
    return open_card(wanted, session, kind, stuck)


def refuse_as_output(path: Path, settings: Settings) -> None:
    """Check that a file may be the output.

    Raises:
        UnwritableFileError: If its name does not end in ``.wav``, or if it is the input.
    """
    if path.suffix.lower() != ".wav":
        raise UnwritableFileError(path, "the output is a WAV file; give a name that ends in .wav")
    if is_file(settings.input) and same_file(path, path_of(settings.input)):
        raise UnwritableFileError(path, "it is the input; choose another output")
