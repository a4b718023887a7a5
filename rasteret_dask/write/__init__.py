"""Cubes become files."""
