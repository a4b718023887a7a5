"""TIFF headers and tiles: pure functions, bytes in, values out."""
