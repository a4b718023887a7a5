"""STAC items and tables in, rows with headers out."""
