"""Devices that a user writes, in the program or in the process that uses them."""
