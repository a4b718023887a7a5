"""What a build would do, before it does it: the search is made, no header is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rasteret_dask import catalog
from rasteret_dask.errors import ArgumentError
from rasteret_dask.ingest.choice import BandChoice
from rasteret_dask.ingest.headers import FIRST_READ
from rasteret_dask.ingest.stac import Search, overview, search_api, search_static
from rasteret_dask.pipeline.sources import Build


def forecast(what: Build) -> dict[str, Any]:
    """Items, files, and the requests and bytes of their headers.

    Parameters
    ----------
    what : Build

    Returns
    -------
    dict
        ``requests`` and ``bytes`` are those of one read a header; a header that is longer takes
        another. What is there already of a build that was broken off is not taken off.

    Raises
    ------
    EmptySelectionError
        Nothing is found.
    SourceError
        The catalogue cannot be read.
    """
    known = None if what.dataset is None else catalog.default()[what.dataset]
    api, static, searched = what.stac_api, what.static_catalog, what.collection
    if known is not None:
        searched = known.stac_collection
        if static is None:
            api, static = known.stac_api, known.static_catalog
    search = Search.of(searched, what.bbox, what.date_range, {"query": what.query})
    if api is not None:
        seen = overview(api, search, 1)
        items: Any = search_api(api, search) if seen is None else seen.sample
        count = len(items) if seen is None else seen.matched
    elif static is not None:
        items = search_static(_file(static), search)
        count = len(items)
    else:
        raise ArgumentError(f"{what.dataset} cannot be searched", hint="load it instead")
    choice = BandChoice(None, what.band_map, None, known)
    bands = choice.infos(items, whole=api is None)
    # Several bands may lie in one file; those of an item stand for all.
    files = len({band.asset for band in bands}) * count
    return {
        "name": what.name,
        "items": count,
        "bands": [band.name for band in bands],
        "files": files,
        "requests": files,
        "bytes": files * FIRST_READ,
    }


def _file(text: str) -> str:
    if "://" in text:
        return text
    path = Path(text).expanduser().absolute()
    return str(path / "catalog.json" if path.is_dir() else path)
