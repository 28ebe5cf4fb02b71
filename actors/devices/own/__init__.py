"""Devices written by the user, hosted in the program or in the component's process."""
