"""The words of flota: ids, specs, records, statuses, views and wire messages.

Pure: no IO, no clock, no randomness. Everything that crosses a process border, or that two packages
must agree on, is defined here and nowhere else.
"""
