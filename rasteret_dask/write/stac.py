"""A STAC item that describes what was written."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping
from typing import Any

import pystac
import rioxarray  # noqa: F401  (the accessor .rio)
import shapely
import xarray as xr
from pyproj import CRS

from rasteret_dask.grid.geobox import lonlat_box
from rasteret_dask.write.target import put_bytes

_MEDIA = {
    "zarr": "application/vnd.zarr; version=3",
    "cog": pystac.MediaType.COG.value,
    "png": pystac.MediaType.PNG.value,
    "parquet": pystac.MediaType.PARQUET.value,
    "arrow": "application/vnd.apache.arrow.file",
    "csv": "text/csv",
    "chips": pystac.MediaType.PARQUET.value,
}
_ROLES = {"png": ["overview"]}
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


def write_item(
    url: str,
    id: str,
    assets: Mapping[str, str],
    dataset: xr.Dataset,
    *,
    dates: tuple[Any, Any] | None = None,
) -> str:
    """Write a STAC item of some outputs on one grid.

    Parameters
    ----------
    url : str
        Any URL that fsspec can write.
    id : str
    assets : mapping of str to str
        Kind (``zarr``, ``cog``, ``png``, ``parquet``, ``csv``), with anything after a ``-``, to
        URL. Paths become relative to the item's folder.
    dataset : Dataset
        Whose grid they are on; nothing is computed.
    dates : pair of datetime, optional
        First and last, UTC.

    Returns
    -------
    str
        The URL.
    """
    rio = dataset[next(iter(dataset.data_vars))].rio
    west, south, east, north = lonlat_box(rio.bounds(), rio.crs.to_wkt())
    first, last = (_utc(date) for date in dates or (None, None))
    item = pystac.Item(
        id=id,
        geometry=json.loads(shapely.to_geojson(shapely.box(west, south, east, north))),
        bbox=[west, south, east, north],
        datetime=first if first == last else None,
        start_datetime=first,
        end_datetime=last,
        properties=_projection(rio),
        stac_extensions=[_PROJECTION],
    )
    for name, target in assets.items():
        kind = name.partition("-")[0]
        roles = _ROLES.get(kind, ["data"])
        item.add_asset(name, pystac.Asset(_relative(target, url), None, None, _MEDIA[kind], roles))
    document = item.to_dict(include_self_link=False)
    return put_bytes(json.dumps(document, indent=1).encode(), url)


def _projection(rio: Any) -> dict[str, Any]:
    authority = CRS.from_user_input(rio.crs.to_wkt()).to_authority()
    named = (
        {"proj:code": ":".join(authority)}
        if authority
        else {"proj:code": None, "proj:wkt2": rio.crs.to_wkt()}
    )
    shape = [int(n) for n in rio.shape]
    return {**named, "proj:shape": shape, "proj:transform": list(rio.transform(recalc=True))[:6]}


def _utc(date: Any) -> dt.datetime | None:
    return None if date is None else date.replace(tzinfo=dt.UTC)


def _relative(target: str, url: str) -> str:
    if "://" in target or "://" in url:
        return target
    return os.path.relpath(os.path.abspath(target), os.path.dirname(os.path.abspath(url)))
