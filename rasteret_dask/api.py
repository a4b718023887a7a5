"""The functions people start with: build a collection from a catalogue, an API or items."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rasteret_dask import catalog as catalogs
from rasteret_dask.building import Target, build_collection
from rasteret_dask.catalog import Catalog, register
from rasteret_dask.collection import Collection
from rasteret_dask.errors import ArgumentError
from rasteret_dask.index import own
from rasteret_dask.index.commit import digest
from rasteret_dask.ingest.build import Gathered
from rasteret_dask.ingest.cells import spread
from rasteret_dask.ingest.choice import BandChoice
from rasteret_dask.ingest.headers import FIRST_READ
from rasteret_dask.ingest.records import Links, own_properties
from rasteret_dask.ingest.stac import Search, read_items, search_api, search_static
from rasteret_dask.ingest.stream import open_rows, survey
from rasteret_dask.ingest.table import ASSET, TableSource
from rasteret_dask.joining import concat
from rasteret_dask.model import DatasetDescriptor, StorageOptions
from rasteret_dask.opening import (
    WORKSPACE,
    as_collection,
    list_collections,
    load,
    register_local,
    workspace,
)
from rasteret_dask.storage.urls import public, unsigned

__all__ = [
    "WORKSPACE",
    "as_collection",
    "build",
    "build_from_items",
    "build_from_stac",
    "build_from_table",
    "concat",
    "list_collections",
    "load",
    "register",
    "register_local",
    "workspace",
]


def build(
    dataset: str | DatasetDescriptor,
    *,
    name: str,
    bbox: Any = None,
    date_range: Any = None,
    bands: Sequence[str] | None = None,
    stac_api: str | None = None,
    static_catalog: str | os.PathLike[str] | None = None,
    collection: str | None = None,
    catalog: Catalog | None = None,
    **options: Any,
) -> Collection:
    """Build a collection of a dataset that the catalogue describes.

    Parameters
    ----------
    dataset : str or DatasetDescriptor
        An id, as ``earthsearch/sentinel-2-l2a``.
    name : str
        Of the collection; the same name with the same arguments is built once.
    bbox, date_range : optional
        Where and when, as in `build_from_stac`.
    bands : sequence of str, optional
        The bands to index, by any of their names; all of the descriptor's by default.
    stac_api, static_catalog, collection : str, optional
        Search there instead of where the descriptor says.
    catalog : Catalog, optional
        The catalogue to look in; the built-in one with the user's by default.
    **options
        Those of `build_from_stac`.

    Returns
    -------
    Collection

    Raises
    ------
    UnknownDatasetError
        No catalogue holds the dataset.
    """
    if isinstance(dataset, DatasetDescriptor):
        descriptor = dataset
    else:
        descriptor = (catalogs.default() if catalog is None else catalog)[dataset]
    if stac_api is None and static_catalog is None:
        stac_api, static_catalog = descriptor.stac_api, descriptor.static_catalog
    if stac_api is None and static_catalog is None:
        raise ArgumentError(f"{descriptor.id} cannot be searched", hint="load() it instead")
    return build_from_stac(
        stac_api=stac_api,
        static_catalog=static_catalog,
        collection=descriptor.stac_collection if collection is None else collection,
        name=name,
        bbox=bbox,
        date_range=date_range,
        bands=bands,
        descriptor=descriptor,
        **options,
    )


def build_from_stac(
    *,
    name: str,
    stac_api: str | None = None,
    static_catalog: str | os.PathLike[str] | None = None,
    collection: str | None = None,
    bbox: Any = None,
    date_range: Any = None,
    bands: Sequence[str] | None = None,
    band_map: Mapping[str, str] | None = None,
    band_index_map: Mapping[str, int] | None = None,
    query: Any = None,
    filter: Any = None,
    intersects: Any = None,
    ids: Sequence[str] | None = None,
    sortby: Any = None,
    max_items: int | None = None,
    prefer: str | None = None,
    descriptor: DatasetDescriptor | None = None,
    workspace_dir: str | os.PathLike[str] | None = None,
    storage: StorageOptions | None = None,
    first_read: int = FIRST_READ,
    force: bool = False,
    single_writer: bool = False,
) -> Collection:
    """Search a STAC API or a static catalogue, and index the headers of what is found.

    Runs on the Dask scheduler that is active, on threads when there is none. Each header is read
    once; a build that was broken off goes on where it ended. A file that cannot be read keeps its
    row, without a header, and is in the report.

    Parameters
    ----------
    name : str
        Of the collection, and of its folder in the workspace.
    stac_api, static_catalog : str
        One of them: URL of an API, or URL or path of a catalogue.
    collection : str, optional
        STAC collection.
    bbox : tuple of float, optional
        ``(west, south, east, north)`` in lon/lat; west > east crosses the antimeridian.
    date_range : pair or str, optional
        ``("2023-06-01", "2023-08-31")``; a date without a time includes its last moment.
    bands : sequence of str, optional
        The bands to index; all by default.
    band_map : mapping of str to str, optional
        Canonical name → asset key. Without it, and without a descriptor, bands are called as their
        assets are.
    band_index_map : mapping of str to int, optional
        Which band of its file each is, from 0.
    query, filter, intersects, ids, sortby, max_items : optional
        Passed to the API; a static catalogue knows ``ids`` and ``max_items``.
    prefer : str, optional
        Alternate hrefs to take, as ``s3``.
    descriptor : DatasetDescriptor, optional
        Names the bands; found by API and collection when it is in the catalogue.
    workspace_dir : optional
        Where the collection goes; see `workspace`.
    storage : StorageOptions, optional
        How the rasters and the workspace are reached; by default the rasters as the dataset says, and the workspace by what this
        process has.
    first_read : int
        Bytes of the first request for a header.
    force : bool
        Build again, and in place of a collection built of other arguments.
    single_writer : bool
        Nobody else writes to the workspace; needed where the protocol has no conditional create.

    Raises
    ------
    EmptySelectionError
        The search found nothing.
    BuildMismatchError
        The name is taken by a collection that was built of other arguments.
    SourceError
        The catalogue cannot be read.
    """
    if (stac_api is None) == (static_catalog is None):
        raise ArgumentError("one of stac_api and static_catalog is needed")
    options = {
        "query": query,
        "filter": filter,
        "intersects": intersects,
        "ids": None if ids is None else list(ids),
        "sortby": sortby,
        "max_items": max_items,
    }
    wanted = Search.of(collection, bbox, date_range, options)
    if descriptor is None and band_map is None:
        descriptor = catalogs.default().find(stac_api, collection)
    choice = BandChoice(bands, band_map, band_index_map, descriptor, _links(prefer, {}, descriptor))
    target = Target(name, workspace_dir, storage, first_read, force, single_writer)
    if stac_api is not None:
        _check_public(stac_api)
        source, find = {"stac_api": stac_api}, partial(search_api, stac_api, wanted)
    else:
        path = _catalog_file(os.fspath(static_catalog or ""))
        _check_public(path)
        source, find = {"static_catalog": path}, partial(search_static, path, wanted)

    def gather() -> Gathered:
        cells = None if stac_api is None else spread(stac_api, wanted)
        if cells is not None:
            infos = choice.infos(cells.sample, whole=False)
            return Gathered(infos, spread=cells, links=choice.links)
        return choice.gathered(find())

    return build_collection(target, {**source, **wanted.describe()}, choice, gather)


def build_from_items(
    items: Any,
    *,
    name: str,
    bands: Sequence[str] | None = None,
    band_map: Mapping[str, str] | None = None,
    band_index_map: Mapping[str, int] | None = None,
    prefer: str | None = None,
    descriptor: DatasetDescriptor | None = None,
    workspace_dir: str | os.PathLike[str] | None = None,
    storage: StorageOptions | None = None,
    first_read: int = FIRST_READ,
    force: bool = False,
    single_writer: bool = False,
) -> Collection:
    """Index the headers of items that were searched already.

    Parameters
    ----------
    items
        STAC items (mappings or pystac), an ItemCollection, or a path to JSON or NDJSON.
    name, bands, band_map, band_index_map, prefer, descriptor, workspace_dir, storage, first_read,
    force, single_writer
        As in `build_from_stac`.

    Raises
    ------
    EmptySelectionError
        There are no items.
    """
    found = read_items(items)
    source = {"items": digest(sorted(json.dumps(i, sort_keys=True, default=str) for i in found))}
    choice = BandChoice(bands, band_map, band_index_map, descriptor, _links(prefer, {}, descriptor))
    target = Target(name, workspace_dir, storage, first_read, force, single_writer)
    columns = own_properties(found)
    return build_collection(target, source, choice, lambda: choice.gathered(found, columns))


def build_from_table(
    table: Any,
    *,
    name: str,
    column_map: Mapping[str, str] | None = None,
    href_column: str | None = None,
    band_index_map: Mapping[str, int] | None = None,
    url_rewrite_patterns: Mapping[str, str] | None = None,
    columns: Sequence[str] | None = None,
    filter_expr: Any = None,
    timezone: str | None = None,
    bands: Sequence[str] | None = None,
    band_codes: Sequence[str] | None = None,
    band_map: Mapping[str, str] | None = None,
    enrich_cog: bool = True,
    prefer: str | None = None,
    descriptor: DatasetDescriptor | None = None,
    workspace_dir: str | os.PathLike[str] | None = None,
    storage: StorageOptions | None = None,
    first_read: int = FIRST_READ,
    force: bool = False,
    single_writer: bool = False,
) -> Collection:
    """Index the headers of the files that a table links to; for tables that hold headers already there is `as_collection`.

    Parameters
    ----------
    table
        Path or URL of Parquet, GeoParquet or STAC GeoParquet; or pyarrow, Polars, DuckDB, pandas, GeoPandas: a table, dataset or reader.
        It needs ``id``, ``datetime`` (or a year), and ``assets`` or a column of links; ``geometry`` and ``bbox`` when it is to be searched
        by place.
    name : str
        Of the collection.
    column_map : mapping of str to str, optional
        Its columns' names → those above, or other names. Columns that are none of those above are columns of the collection.
    href_column : str, optional
        The column of links, when there is no ``assets``; one file a row.
    band_index_map : mapping of str to int, optional
        Bands of those files, and which band of the file each is, from 0.
    url_rewrite_patterns : mapping of str to str, optional
        Beginnings of links → what they become.
    columns, filter_expr : optional
        The columns (those above among them) and rows to read; an Arrow expression is pushed down to row groups.
    timezone : {"UTC"}, optional
        What times without a zone mean; without it they are refused.
    bands, band_codes : sequence of str, optional
        The bands to index (the second is rasteret's name for it).
    enrich_cog : bool
        Headers are always read; False is refused.
    band_map, prefer, descriptor, workspace_dir, storage, first_read, force, single_writer
        As in `build_from_stac`.

    Raises
    ------
    ArgumentError
        A column is missing or clashes with one of ours, a time has no zone, a footprint is empty, or a row has no link.
    DuplicateItemError
        Two different rows have one id.
    EmptySelectionError
        There are no rows.
    """
    if not enrich_cog:
        raise ArgumentError(
            "a collection needs the headers of its files",
            hint="as_collection wraps a table that has them",
        )
    if isinstance(columns, str):
        raise ArgumentError(f"columns={columns!r}; a list of names is needed")
    how = TableSource(dict(column_map or {}), href_column, columns, filter_expr, timezone)
    rows = open_rows(table, how, storage or StorageOptions())
    if href_column is not None and band_map is None:
        band_map = dict.fromkeys(band_index_map or {ASSET: 0}, ASSET)
    wanted = bands if bands is not None else band_codes
    links = _links(prefer, url_rewrite_patterns or {}, descriptor)
    choice = BandChoice(wanted, band_map, band_index_map, descriptor, links)
    target = Target(name, workspace_dir, storage, first_read, force, single_writer)
    kept, seen = rows.columns(), survey(rows)

    def gather() -> Gathered:
        infos = choice.infos(seen.samples)
        records = choice.records(rows.items(seen.repeated), infos, kept)
        return Gathered(infos, records, count=seen.count, columns=kept)

    source = {"table": seen.digest, "columns": own.declare(kept)}
    return build_collection(target, source, choice, gather)


# --- inside --------------------------------------------------------------------------------------
def _links(
    prefer: str | None, rewrite: Mapping[str, str], descriptor: DatasetDescriptor | None
) -> Links:
    """What the caller says of links, over what the descriptor says."""
    if descriptor is None:
        return Links(prefer, dict(rewrite))
    told = {**descriptor.url_rewrite_patterns, **rewrite}
    return Links(descriptor.prefer if prefer is None else prefer, told)


def _catalog_file(text: str) -> str:
    """A catalogue's own file, when the folder that holds it is named; absolute, so that hrefs
    resolve."""
    if "://" in text:
        return text
    path = Path(text).expanduser().absolute()
    return str(path / "catalog.json" if path.is_dir() else path)


def _check_public(url: str) -> None:
    """Refuse a catalogue whose URL holds a secret: it is written into the collection, and asked again by `append`."""
    if unsigned(url) != url:
        raise ArgumentError(
            "the URL of a catalogue holds no user, key or signature: it is written into the collection",
            url=public(url),
            hint="an API's user and password may be in ~/.netrc; or search by yourself, and build_from_items() of what is found",
        )
