"""A service of many conversations on one machine."""
