"""From what a caller asks to be built to a collection: what all kinds of builds have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rasteret_dask.collection import Collection
from rasteret_dask.errors import ArgumentError
from rasteret_dask.index.commit import canonical
from rasteret_dask.index.place import Place
from rasteret_dask.ingest.build import Gathered, Order, run_build
from rasteret_dask.ingest.choice import BandChoice
from rasteret_dask.model import StorageOptions
from rasteret_dask.opening import NAME, open_place, storage_of, workspace


@dataclass(frozen=True, slots=True)
class Target:
    """Where a collection goes, and how it is made.

    Parameters
    ----------
    name : str
        Of the collection, and of its folder in the workspace.
    workspace_dir : optional
    storage : StorageOptions, optional
        How the rasters and the workspace are reached; by default the rasters as the catalogue says, and the workspace by what this
        process has.
    first_read : int
        Bytes of the first request for a header.
    force : bool
        Build again, and in place of a collection built of other arguments.
    single_writer : bool
        Nobody else writes to the workspace.
    """

    name: str
    workspace_dir: str | os.PathLike[str] | None
    storage: StorageOptions | None
    first_read: int
    force: bool
    single_writer: bool

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ArgumentError(
                f"{self.name!r} is no name for a collection", hint="use letters, digits, . _ -"
            )


def build_collection(
    target: Target,
    source: Mapping[str, Any],
    choice: BandChoice,
    gather: Callable[[], Gathered],
) -> Collection:
    """Build a collection, finish one that was begun, or find it built.

    Parameters
    ----------
    target : Target
    source : mapping
        Where the items are from, as JSON: part of the build's identity.
    choice : BandChoice
    gather : callable
        Finds the items; not called when there is nothing to do.
    """
    descriptor = choice.descriptor
    storage = storage_of(descriptor) if target.storage is None else target.storage
    folder = workspace(target.workspace_dir).rstrip("/")
    # What a dataset says of its own bucket is not so of the caller's.
    reached = StorageOptions() if target.storage is None else target.storage
    place = Place(f"{folder}/{target.name}", reached, target.single_writer)
    arguments = {"source": source, **choice.describe(), "storage": dict(storage.options)}
    if storage.auth is not None:
        arguments |= {"auth": storage.auth, "auth_options": dict(storage.auth_options)}
    order = Order(
        name=target.name,
        place=place,
        arguments=json.loads(canonical(arguments)),
        dataset=None if descriptor is None else descriptor.id,
        storage=storage,
        first_read=target.first_read,
        force=target.force,
    )
    commit, report = run_build(order, gather)
    return open_place(place, commit, storage=storage, report=report, descriptor=descriptor)
