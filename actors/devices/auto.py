"""The sound card where there is one; where there is none, a stand-in that says so.

Decided once a session: what was a sound card at first is waited for when it is lost.
"""

from __future__ import annotations

from pathlib import Path

from actors.devices.base import Capture, NoSuchDeviceError, Playback, SoundLibraryError
from messages import SessionInfo

__all__ = ["capture_or_silence", "playback_or_null"]


def capture_or_silence(session: SessionInfo, block: int) -> Capture:
    """Return the default microphone or, on a machine without one, silence.

    Raises:
        DeviceError: there is one, and it does not open.
    """
    from actors.devices.portaudio import PortAudioCapture

    mark = Path(session.directory) / "no-microphone"
    why = "there is no microphone"
    if not mark.exists():
        try:
            return PortAudioCapture("default", block)
        except (NoSuchDeviceError, SoundLibraryError) as error:
            if not session.first:
                raise
            why = str(error)
            mark.touch()
    from actors.devices.silence import SilenceCapture

    silence = SilenceCapture(block)
    silence.stands_in_because = why
    return silence


def playback_or_null(session: SessionInfo) -> Playback:
    """Return the default loudspeaker or, on a machine without one, a clock that plays nothing.

    Raises:
        DeviceError: there is one, and it does not open.
    """
    from actors.devices.portaudio import PortAudioPlayback

    mark = Path(session.directory) / "no-loudspeaker"
    why = "there is no loudspeaker"
    if not mark.exists():
        try:
            return PortAudioPlayback("default")
        except (NoSuchDeviceError, SoundLibraryError) as error:
            if not session.first:
                raise
            why = str(error)
            mark.touch()
    from actors.devices.silence import NullPlayback

    nothing = NullPlayback()
    nothing.stands_in_because = why
    return nothing
