"""Grids, warps, mosaics and radiometry: pure functions of numbers and arrays."""
