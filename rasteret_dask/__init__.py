"""Read cloud GeoTIFFs at scale: headers indexed once, pixels as lazy Dask cubes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rasteret_dask.api import build, build_from_items, build_from_stac, build_from_table
    from rasteret_dask.catalog import Catalog, register
    from rasteret_dask.collection import Collection
    from rasteret_dask.errors import RasteretError
    from rasteret_dask.joining import concat
    from rasteret_dask.model import (
        BandInfo,
        DatasetDescriptor,
        RatePolicy,
        RetryPolicy,
        StorageOptions,
    )
    from rasteret_dask.opening import (
        as_collection,
        list_collections,
        load,
        register_local,
        workspace,
    )
    from rasteret_dask.read.pixels import open_tiff
    from rasteret_dask.repairs import repair

__version__ = "0.1.0"

# Importing the package imports nothing else: Dask, xarray and pyarrow come with what needs them.
_WHERE = {
    "as_collection": "rasteret_dask.opening",
    "build": "rasteret_dask.api",
    "build_from_items": "rasteret_dask.api",
    "build_from_stac": "rasteret_dask.api",
    "build_from_table": "rasteret_dask.api",
    "concat": "rasteret_dask.joining",
    "list_collections": "rasteret_dask.opening",
    "load": "rasteret_dask.opening",
    "register": "rasteret_dask.catalog",
    "register_local": "rasteret_dask.opening",
    "workspace": "rasteret_dask.opening",
    "open_tiff": "rasteret_dask.read.pixels",
    "repair": "rasteret_dask.repairs",
    "Catalog": "rasteret_dask.catalog",
    "Collection": "rasteret_dask.collection",
    "RasteretError": "rasteret_dask.errors",
    "BandInfo": "rasteret_dask.model",
    "DatasetDescriptor": "rasteret_dask.model",
    "RatePolicy": "rasteret_dask.model",
    "RetryPolicy": "rasteret_dask.model",
    "StorageOptions": "rasteret_dask.model",
}

__all__ = [
    "BandInfo",
    "Catalog",
    "Collection",
    "DatasetDescriptor",
    "RasteretError",
    "RatePolicy",
    "RetryPolicy",
    "StorageOptions",
    "as_collection",
    "build",
    "build_from_items",
    "build_from_stac",
    "build_from_table",
    "concat",
    "list_collections",
    "load",
    "open_tiff",
    "register",
    "register_local",
    "repair",
    "workspace",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
