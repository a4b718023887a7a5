"""Where commands compute, and how they reach rasters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from distributed import Client

from rasteret_dask import resources
from rasteret_dask.cli.console import completed
from rasteret_dask.cluster import profiles

Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="PROFILE",
        help="Where to compute: a YAML file, or a profile that ships (threads, local, address).",
        autocompletion=completed("configs/clusters"),
    ),
]

Storage = Annotated[
    str | None,
    typer.Option(
        metavar="PROFILE",
        help="How rasters are reached: a YAML file, or a profile that ships (unsigned, earthdata).",
    ),
]


@contextmanager
def computing(cluster: str | None) -> Iterator[Client | None]:
    """The cluster of a profile, for as long as the body runs; None is Dask's threads."""
    if cluster is None:
        yield None
        return
    profile = profiles.from_file(resources.find(cluster, "configs/clusters"))
    with profiles.open_profile(profile) as client:
        yield client
