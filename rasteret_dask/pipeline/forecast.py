"""What builds, appends, exports and samples would do, before they do it: no header and no pixel is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas

from rasteret_dask import catalog
from rasteret_dask.collection import Collection
from rasteret_dask.errors import ArgumentError, CollectionError
from rasteret_dask.grid.given import understand_points
from rasteret_dask.index import schema
from rasteret_dask.index.place import Place
from rasteret_dask.ingest.choice import BandChoice
from rasteret_dask.ingest.headers import FIRST_READ
from rasteret_dask.ingest.records import Links, make_record
from rasteret_dask.ingest.refresh import GLANCE
from rasteret_dask.ingest.report import BuildReport
from rasteret_dask.ingest.stac import Search, overview, read_items, search_api, search_static
from rasteret_dask.ingest.update import newest, search_again
from rasteret_dask.opening import NAME
from rasteret_dask.pipeline.sources import Build
from rasteret_dask.read.gather import COLUMNS
from rasteret_dask.read.request import make_request
from rasteret_dask.read.spotcost import cost_of, orders_of


def of_build(what: Build) -> dict[str, Any]:
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
    if not NAME.fullmatch(what.name):
        raise ArgumentError(
            f"{what.name!r} is no name for a collection", hint="use letters, digits, . _ -"
        )
    known = None if what.dataset is None else catalog.default()[what.dataset]
    api, static, searched = what.stac_api, what.static_catalog, what.collection
    if known is not None:
        searched = searched or known.stac_collection
        if static is None:
            api, static = known.stac_api, known.static_catalog
    elif what.band_map is None:  # as the build knows it
        known = catalog.default().find(api, searched)
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


# --- of collections that are there ---------------------------------------------------------------
def of_append(
    collection: Collection, items: str | None = None, *, refresh: bool = False
) -> dict[str, Any]:
    """What `Collection.append` would read: the search is made again, no header is read.

    Parameters
    ----------
    collection : Collection
        A whole one, in a workspace.
    items : str, optional
        As `Collection.append` takes them.
    refresh : bool
        Whether `Collection.refresh` would follow: it asks every file for a few bytes.

    Returns
    -------
    dict
        ``items`` there now, ``found`` and ``new``; ``requests`` and ``bytes`` as in `of_build`. What
        of a refresh has changed, and must be read again, nobody knows before.

    Raises
    ------
    ArgumentError
        It is no whole collection in a workspace, or has no search of its own.
    """
    if collection.place is None or collection.commit is None:
        raise ArgumentError(
            "only a whole collection can be updated", hint="load() it from its workspace"
        )
    commit = newest(collection.place)
    found = search_again(commit) if items is None else list(read_items(items))
    there = set(collection.to_table([schema.ID]).column(schema.ID).to_pylist())
    fresh = {item["id"]: item for item in found if item["id"] not in there}
    bands = schema.band_infos(commit.document)
    links = Links(
        commit.arguments.get("prefer"), commit.arguments.get("url_rewrite_patterns") or {}
    )
    files = {ref.url for one in fresh.values() for ref in make_record(one, bands, links).assets}
    looked = BuildReport.from_lasting(commit.report).assets if refresh else 0
    return {
        "name": collection.name,
        "items": len(there),
        "found": len(found),
        "new": len(fresh),
        "files": len(files),
        **({"looked_at": looked} if refresh else {}),
        "requests": len(files) + looked,
        "bytes": len(files) * FIRST_READ + looked * GLANCE,
    }


def of_export(
    collection: Collection, target: str, partition_by: Sequence[str] = ()
) -> dict[str, Any]:
    """What `Collection.export` would write.

    Returns
    -------
    dict
        ``items``, ``columns``, and ``bytes`` of the collection's own parts, which the copy has about.

    Raises
    ------
    CollectionError
        There is something already.
    ArgumentError
        A column to partition by is unknown.
    """
    unknown = [name for name in partition_by if name not in collection.schema.names]
    if unknown:
        raise ArgumentError(f"no column {unknown[0]!r} to export")
    place = Place(target if "://" in target else str(Path(target).expanduser().absolute()))
    if place.list("") or place.folders():
        raise CollectionError(
            "there is something already", url=place.url, hint="choose another path"
        )
    parts = () if collection.commit is None else collection.commit.parts
    return {
        "name": collection.name,
        "target": place.url,
        "items": len(collection),
        "columns": len(collection.schema.names),
        **({"bytes": sum(part.size for part in parts)} if parts else {}),
    }


def of_samples(
    collection: Collection, points: geopandas.GeoDataFrame, bands: Sequence[str] | None = None
) -> dict[str, Any]:
    """What `Collection.sample_points` would read.

    Parameters
    ----------
    collection : Collection
    points : GeoDataFrame
        With a CRS.
    bands : sequence of str, optional
        All by default.

    Returns
    -------
    dict
        ``points``, ``items`` that hold one, ``rows`` of the result; ``tiles``, ``requests`` and
        ``bytes`` as one process reads them: tasks of a cluster merge their own ranges, which makes a
        few requests more.
    """
    names = tuple(collection.resolve_bands(bands))
    infos = {canonical: collection.band_info(canonical) for _, canonical in names}
    request = make_request(names, options={"storage": collection.storage}, infos=infos)
    bounds = points.geometry.to_crs("OGC:CRS84").total_bounds
    columns = [name for name in COLUMNS if name in collection.schema.names]
    columns += dict.fromkeys(schema.band_column(band) for _, band in names)
    rows = collection.subset(bbox=tuple(map(float, bounds))).to_table(columns)
    orders = orders_of(rows, request, understand_points(points))
    cost = cost_of(orders)
    return {
        "name": collection.name,
        "points": len(points),
        "items": len({order.item for order in orders}),
        "rows": sum(len(order.points) for order in orders),
        "tiles": cost.tiles,
        "requests": cost.requests,
        "bytes": cost.bytes,
    }
