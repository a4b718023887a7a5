"""The record of a cube that writes down what fails: its arguments as plain values, and the way back.

It lies in the ledger, ``<ledger>/<run>/run.json``; see ``docs/formats.md``, "Run record".
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pyarrow as pa
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from rasteret_dask.errors import ArgumentError, CollectionError, PipelineError
from rasteret_dask.index import schema
from rasteret_dask.model import Ledger, RatePolicy, RetryPolicy, StorageOptions
from rasteret_dask.read.request import CubeRequest
from rasteret_dask.runs.record import CUBE, Record, begin

if TYPE_CHECKING:
    from rasteret_dask.collection import Collection

# What is taken from the request, where it has been understood, or is no part of a cube's value.
_GRID = frozenset({"crs", "target_crs", "resolution", "anchor", "geobox", "like"})
_AREA = frozenset({"geometries", "geometry_column", "bbox"})
_UNDERSTOOD = _GRID | _AREA | {"dtype", "storage", "on_error", "ledger"}
_NUMBERS = ("nodata", "fill_value")


def url_of(ledger: Ledger) -> str:
    """Where the record of a run lies."""
    return f"{ledger.url.rstrip('/')}/{ledger.run}/run.json"


def note_cube(
    collection: Collection,
    table: pa.Table,
    request: CubeRequest,
    given: Mapping[str, Any],
    filtered: bool,
) -> str:
    """Write the record of a cube.

    Parameters
    ----------
    collection : Collection
    table : pyarrow.Table
        The rows that the cube is made of.
    request : CubeRequest
        With a ledger.
    given : mapping
        ``geometries``, ``bbox`` and the options of ``get_xarray`` as they were given.
    filtered : bool
        Whether the call has filters of its own.

    Returns
    -------
    str
        Its URL.

    Raises
    ------
    ArgumentError
        An argument cannot be written down.
    CollectionError
        The ledger's place cannot be written to.
    """
    ledger = request.ledger
    assert ledger is not None
    chosen = filtered or collection.view.filter is not None
    try:
        begin(
            url_of(ledger),
            CUBE,
            collection,
            ids=table.column(schema.ID).to_pylist() if chosen else None,
            arguments={**_plain_options(given), **_understood(request, given)},
            chunk_size=dask.config.get("array.chunk-size"),
            ledger={"url": ledger.url, "run": ledger.run},
        )
    except PipelineError as error:
        raise CollectionError(f"the ledger cannot be written: {error.message}") from None
    return url_of(ledger)


def _plain_options(given: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in given.items() if name not in _UNDERSTOOD}
    return {name: _plain(value, name) for name, value in rest.items() if value is not None}


def _understood(request: CubeRequest, given: Mapping[str, Any]) -> dict[str, Any]:
    """What came in many forms, in one."""
    grid = request.grid
    storage = asdict(request.storage)
    said: dict[str, Any] = {
        "bands": [asked for asked, _ in request.bands],
        "crs": grid.crs,
        "resolution": None if grid.resolution is None else list(grid.resolution),
        "anchor": None if grid.anchor is None else [float(v) for v in grid.anchor],
        "dtype": request.dtype,
        "storage": storage,
    }
    if given.get("bbox") is not None:
        said["bbox"] = [float(v) for v in given["bbox"]]
    elif request.areas is not None:
        said["geometries"] = [shapely.to_wkb(g, hex=True) for g in request.areas.geometries]
        said["geometry_crs"] = request.areas.crs
    elif given.get("geometries") is not None and grid.bounds is not None:  # four numbers
        said["geometries"] = [float(v) for v in grid.bounds]
        said["geometry_crs"] = grid.bounds_crs
    fixed = request.fixed
    if fixed is not None and (given.get("geobox") is not None or given.get("like") is not None):
        said["geobox"] = {
            "crs": fixed.crs,
            "transform": list(fixed.affine),
            "shape": [fixed.height, fixed.width],
        }
    return {name: value for name, value in said.items() if value is not None}


def _plain(value: Any, name: str) -> Any:
    """A value as JSON has it.

    Raises
    ------
    ArgumentError
        It cannot be written down.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(one, name) for key, one in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray):
        return [_plain(one, name) for one in value]
    if callable(value):
        named = getattr(value, "__qualname__", type(value).__qualname__)
        return {"function": f"{getattr(value, '__module__', '')}:{named}"}
    raise ArgumentError(
        f"{name}= holds {type(value).__name__}, which the record of the run cannot hold",
        hint="give plain numbers and texts, or leave on_error='record' out",
    )


def arguments_of(record: Record, more: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``get_xarray`` that give the same cube again; of its ledger nothing is said.

    Parameters
    ----------
    record : Record
    more : mapping
        In place of what is recorded: functions, which no record holds, and ``storage``.

    Raises
    ------
    ArgumentError
        A function is needed and not given.
    """
    said = dict(record.document["arguments"])
    said.pop("geometry_column", None)  # older records name it, and hold the geometries themselves
    for name, value in said.items():
        if isinstance(value, Mapping) and set(value) == {"function"} and name not in more:
            raise ArgumentError(
                f"{name}= was the function {value['function']}, and a record holds no code",
                hint=f"hand it over again: repair(…, {name}=…)",
            )
    for name in _NUMBERS:
        if isinstance(said.get(name), str):
            said[name] = float(said[name])
    if "storage" in said:
        said["storage"] = _storage(said["storage"])
    if "geobox" in said and "bbox" in said:
        raise ArgumentError(
            "the record is of an older version, which took a bbox beside a given grid",
            hint="write the cube again",
        )
    if "geobox" in said:
        grid = said["geobox"]
        said["geobox"] = GeoBox(tuple(grid["shape"]), Affine(*grid["transform"]), grid["crs"])
    shapes = said.get("geometries")
    if shapes is not None:
        texts = isinstance(shapes[0], str)
        said["geometries"] = [shapely.from_wkb(s) for s in shapes] if texts else tuple(shapes)
    return {**said, **more}


def _storage(said: Mapping[str, Any]) -> StorageOptions:
    policies = {"retry": RetryPolicy(**said["retry"]), "rate": RatePolicy(**said["rate"])}
    return StorageOptions(**{**said, **policies})
