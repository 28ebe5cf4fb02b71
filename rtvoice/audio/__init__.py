"""Interfaces of audio devices that a program implements itself."""

from rtvoice.audio.devices import AudioInputDevice, AudioOutputDevice

__all__ = ["AudioInputDevice", "AudioOutputDevice"]
