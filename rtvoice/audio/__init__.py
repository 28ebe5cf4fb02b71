"""Audio of the user's own."""

from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice

__all__ = ["AudioInputDevice", "AudioOutputDevice"]
