"""Join collections: all their items as one table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

import pyarrow as pa

from rasteret_dask.collection import Collection
from rasteret_dask.errors import ArgumentError, DuplicateItemError
from rasteret_dask.index import schema
from rasteret_dask.index.joined import join
from rasteret_dask.index.told import agreed
from rasteret_dask.model import StorageOptions


def concat(
    collections: Iterable[Collection], *, name: str = "", storage: StorageOptions | None = None
) -> Collection:
    """Join collections: all their items, and all their bands; an item has a band or has not.

    Parameters
    ----------
    collections : iterable of Collection
        Bands of the same canonical name are one band, as ``red`` of HLS from Landsat and from Sentinel-2. Where their descriptors call
        something else nodata, scale or offset, each one's items keep its own.
    name : str
    storage : StorageOptions, optional
        How all the rasters are reached; needed when the collections differ in that.

    Raises
    ------
    DuplicateItemError
        Two of them hold an item of the same id.
    ArgumentError
        There is none, or they have no band in common, or reach rasters differently, or decode a band differently.
    """
    given = list(collections)
    if not given:
        raise ArgumentError("no collection was given")
    shared = set.intersection(*(set(c.bands) for c in given))
    if not shared:
        raise ArgumentError(
            "the collections have no band in common",
            hint="; ".join(f"{c.name or 'one'}: {', '.join(c.bands)}" for c in given),
        )
    if storage is None:
        if any(c.storage != given[0].storage for c in given):
            raise ArgumentError(
                "the collections reach their rasters differently", hint="give storage="
            )
        storage = given[0].storage
    ids = pa.chunked_array(
        [k for c in given for k in c.to_table([schema.ID])[schema.ID].chunks], pa.string()
    )
    if len(ids.unique()) < len(ids):
        twice = next(v["values"] for v in ids.value_counts().to_pylist() if v["counts"] > 1)
        raise DuplicateItemError(
            "two of the collections hold an item of the same id",
            item=twice,
            hint="subset() one of them",
        )
    homes = [c.reached if c.place is None else c.place.options for c in given]
    said = [{band: c.band_info(band) for band in c.bands} for c in given]
    infos, told = agreed(said, [c.name for c in given])
    descriptor = given[0].descriptor
    if any(c.descriptor != descriptor for c in given):
        descriptor = None
    # What they agree on is not in their rows; whoever takes these away finds it here.
    document = {
        "schema_version": schema.VERSION,
        "name": name,
        "bands": [asdict(info) | {"aliases": list(info.aliases)} for info in infos],
    }
    metadata = {schema.METADATA_KEY: json.dumps(document).encode()}
    if descriptor is not None:
        metadata[b"data_source"] = descriptor.id.encode()
    geo = (given[0].schema.metadata or {}).get(b"geo")
    if geo:
        metadata[b"geo"] = geo
    return Collection(
        join([c.view for c in given], metadata, told),
        name=name or "+".join(c.name for c in given if c.name),
        descriptor=descriptor,
        infos=infos,
        storage=storage,
        reached=homes[0] if all(home == homes[0] for home in homes) else None,
    )
