"""YAML in, results out."""
