"""What a pipeline names and does not make: collections and vector files."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pandas as pd

from rasteret_dask import api
from rasteret_dask.collection import Collection
from rasteret_dask.errors import ConfigError, EmptySelectionError
from rasteret_dask.pipeline.sources import Build, Source, Subset
from rasteret_dask.storage.settings import named


# --- collections ---------------------------------------------------------------------------------
def find_collection(
    source: Source,
    area: geopandas.GeoDataFrame | None = None,
    path: str = "collection",
    pinned: Collection | None = None,
) -> tuple[Collection, int]:
    """The collection after its subset, and how many headers were read for it.

    Parameters
    ----------
    source : Source
    area : GeoDataFrame, optional
        What ``subset.geometries`` names.
    path : str
        The key, for errors.
    pinned : Collection, optional
        What was loaded or built before, in place of what is there now.

    Raises
    ------
    EmptySelectionError
        No item is left.
    """
    if pinned is not None:
        collection, headers = pinned, 0
    elif source.load is not None:
        collection, headers = api.load(source.load, storage=named(source.storage)), 0
    else:
        assert source.build is not None  # Source holds exactly one of the two
        collection, headers = build(source.build, source.storage)
    chosen = _narrowed(collection, source.subset, area)
    if len(chosen) == 0:
        raise EmptySelectionError(
            "no item of the collection is left", path=path, hint=_widen(source.subset)
        )
    return chosen, headers


def build(what: Build, storage: str | None = None) -> tuple[Collection, int]:
    """Build a collection, or find it built; also say how many headers were read just now.

    Parameters
    ----------
    what : Build
    storage : str, optional
        A storage profile, by its name or file.
    """
    arguments = what.model_dump(exclude_none=True)
    if storage is not None:
        arguments["storage"] = named(storage)
    dataset = arguments.pop("dataset", None)
    if dataset is None:
        collection = api.build_from_stac(**arguments)
    else:
        collection = api.build(dataset, **arguments)
    report = collection.report
    return collection, report.headers if report is not None and report.requests else 0


def _narrowed(
    collection: Collection, subset: Subset | None, area: geopandas.GeoDataFrame | None
) -> Collection:
    if subset is None:
        return collection
    arguments = subset.model_dump(exclude_none=True)
    if area is not None:
        arguments["geometries"] = area
    return collection.subset(**arguments)


def _widen(subset: Subset | None) -> str:
    if subset is None:
        return "the search or the collection is empty"
    given = ", ".join(f"{k}={v}" for k, v in subset.model_dump(exclude_none=True).items())
    return f"subset says {given}"


# --- vector files --------------------------------------------------------------------------------
def read_vector(url: str, path: str) -> geopandas.GeoDataFrame:
    """A vector file or GeoParquet, with geometries and a CRS.

    Raises
    ------
    ConfigError
        `path` names the key.
    """
    frame = read_rows(url, path)
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.empty or frame.crs is None:
        raise ConfigError(f"{url} has no geometries, or no CRS", path=path)
    return frame


def read_rows(url: str, path: str) -> pd.DataFrame:
    """A table with or without geometries: Parquet, CSV, or any vector file.

    Raises
    ------
    ConfigError
        There is no such file, or it cannot be read.
    """
    if "://" not in url and not Path(url).exists():
        raise ConfigError(f"{url}: no such file", path=path)
    suffix = Path(url).suffix.lower()
    try:
        if suffix == ".csv":
            return pd.read_csv(url, dtype=str)
        if suffix in (".parquet", ".geoparquet"):
            return _parquet(url)
        frame: pd.DataFrame = geopandas.read_file(url)
        return frame
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{url} is no vector file: {error}", path=path) from None


def _parquet(url: str) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = geopandas.read_parquet(url)
        return frame
    except ValueError:  # Parquet without geometries
        return pd.read_parquet(url)
