"""The command line: ``rasteret-dask``."""

from rasteret_dask.cli.app import main

__all__ = ["main"]
