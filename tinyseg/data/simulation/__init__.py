"""Simulate images with exact labels.

A text such as "sim:cells?n=64" or its arguments come in, samples go out. Nothing here knows of
files, datasets or training; equal arguments give the same bytes on every machine.
"""

from tinyseg.data.simulation.simulate import (
    FACTS,
    KINDS,
    Simulation,
    parse_simulation,
    simulate,
)

__all__ = ["FACTS", "KINDS", "Simulation", "parse_simulation", "simulate"]
