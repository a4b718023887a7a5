"""The functions people start with: build a collection, load one, wrap a table."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from rasteret_dask import catalog as catalogs
from rasteret_dask.catalog import Catalog
from rasteret_dask.collection import Collection, infos_of
from rasteret_dask.errors import ArgumentError, CollectionError, UnknownDatasetError
from rasteret_dask.index import schema
from rasteret_dask.index.commit import Commit, canonical, digest, read_commit
from rasteret_dask.index.dataset import check_columns, in_memory, open_commit, open_parquet
from rasteret_dask.index.place import Place
from rasteret_dask.ingest.build import Gathered, Order, run_build
from rasteret_dask.ingest.cells import spread
from rasteret_dask.ingest.choice import BandChoice
from rasteret_dask.ingest.headers import FIRST_READ
from rasteret_dask.ingest.report import BuildReport
from rasteret_dask.ingest.stac import Search, read_items, search_api, search_static
from rasteret_dask.model import DatasetDescriptor, StorageOptions

WORKSPACE = "RASTERET_DASK_WORKSPACE"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def workspace(workspace_dir: str | os.PathLike[str] | None = None) -> str:
    """Where collections are kept: the argument, else ``$RASTERET_DASK_WORKSPACE``, else
    ``~/rasteret_workspace``."""
    chosen = workspace_dir or os.environ.get(WORKSPACE) or Path.home() / "rasteret_workspace"
    text = os.fspath(chosen)
    return text if "://" in text else str(Path(text).expanduser())


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
        How the rasters are reached.
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
    pieces = None
    if stac_api is not None:
        source, find = {"stac_api": stac_api}, partial(search_api, stac_api, wanted)
        pieces = partial(spread, stac_api, wanted)
    else:
        path = _catalog_file(os.fspath(static_catalog or ""))
        source, find = {"static_catalog": path}, partial(search_static, path, wanted)
    return _build(
        find,
        pieces=pieces,
        name=name,
        source={**source, **wanted.describe()},
        choice=BandChoice(bands, band_map, band_index_map, descriptor, prefer),
        workspace_dir=workspace_dir,
        storage=storage,
        first_read=first_read,
        force=force,
        single_writer=single_writer,
    )


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
    return _build(
        lambda: found,
        name=name,
        source={"items": digest(sorted(json.dumps(i, sort_keys=True, default=str) for i in found))},
        choice=BandChoice(bands, band_map, band_index_map, descriptor, prefer),
        workspace_dir=workspace_dir,
        storage=storage,
        first_read=first_read,
        force=force,
        single_writer=single_writer,
    )


def load(
    path: str | os.PathLike[str],
    *,
    workspace_dir: str | os.PathLike[str] | None = None,
    storage: StorageOptions | None = None,
    catalog: Catalog | None = None,
    snapshot: int | None = None,
) -> Collection:
    """Open a collection: a name in the workspace, a path or URL, or the id of a published dataset.

    Parameters
    ----------
    path : str or path-like
    workspace_dir, storage, catalog : optional
        As in `build_from_stac`.
    snapshot : int, optional
        An older state, by the number of its commit; the newest by default.

    Raises
    ------
    CollectionError
        There is none, or it cannot be read; `SchemaVersionError` when a newer package wrote it.
    """
    text = os.fspath(path)
    options = storage or StorageOptions()
    for url in _candidates(text, workspace_dir):
        place = Place(url, options)
        commit = read_commit(place, snapshot)
        if commit is not None:
            # Without other word, rasters are reached as they were when the headers were read.
            kept = StorageOptions(options=commit.arguments.get("storage") or {})
            return _open(place, commit, storage=storage or kept, catalog=catalog)
    if snapshot is not None:
        raise CollectionError(f"no snapshot {snapshot} of {text!r}")
    place = Place(_candidates(text, workspace_dir)[0], options)
    if "://" in text or (place.is_local and os.path.exists(place.path())):
        return as_collection(open_parquet(place), name=Path(text).stem, storage=options)
    known = catalogs.default() if catalog is None else catalog
    if text in known:
        published = known[text].parquet
        if published is None:
            raise CollectionError(f"{text!r} is not published as a collection", hint="build() it")
        return load(published, storage=storage)
    raise CollectionError(f"no collection {text!r}", hint=f"looked in {workspace(workspace_dir)}")


def as_collection(
    table: Any,
    *,
    name: str = "",
    descriptor: DatasetDescriptor | None = None,
    storage: StorageOptions | None = None,
) -> Collection:
    """Wrap a table that has headers already; reads nothing.

    Parameters
    ----------
    table
        Anything with Arrow's C stream (pyarrow, Polars, DuckDB, pandas), with the columns ``id,
        datetime, assets`` and one ``{band}_metadata`` at least.

    Raises
    ------
    CollectionError
        A column is missing.
    """
    view = table if hasattr(table, "dataset") else in_memory(_as_table(table))
    check_columns(view.schema)
    document = schema.document(view.schema)
    return Collection(
        view,
        name=name or document.get("name", ""),
        descriptor=descriptor,
        infos=infos_of(document) or (() if descriptor is None else descriptor.bands),
        storage=storage or StorageOptions(),
    )


# --- inside --------------------------------------------------------------------------------------
def _build(
    find: Any,
    *,
    pieces: Any = None,
    name: str,
    source: Mapping[str, Any],
    choice: BandChoice,
    workspace_dir: str | os.PathLike[str] | None,
    storage: StorageOptions | None,
    first_read: int,
    force: bool,
    single_writer: bool,
) -> Collection:
    if not _NAME.fullmatch(name):
        raise ArgumentError(
            f"{name!r} is no name for a collection", hint="use letters, digits, . _ -"
        )
    descriptor = choice.descriptor
    if storage is None:
        storage = StorageOptions(options={} if descriptor is None else descriptor.storage)
    place = Place(f"{workspace(workspace_dir).rstrip('/')}/{name}", storage, single_writer)
    arguments = {"source": source, **choice.describe(), "storage": dict(storage.options)}
    order = Order(
        name=name,
        place=place,
        arguments=json.loads(canonical(arguments)),
        dataset=None if descriptor is None else descriptor.id,
        storage=storage,
        first_read=first_read,
        force=force,
    )

    def gather() -> Gathered:
        cells = None if pieces is None else pieces()
        if cells is not None:
            infos = choice.infos(cells.sample, whole=False)
            return Gathered(infos, spread=cells, prefer=choice.prefer)
        items = find()
        infos = choice.infos(items)
        return Gathered(infos, choice.records(items, infos))

    commit, report = run_build(order, gather)
    return _open(place, commit, storage=storage, report=report, descriptor=descriptor)


def _open(
    place: Place,
    commit: Commit,
    *,
    storage: StorageOptions,
    report: BuildReport | None = None,
    descriptor: DatasetDescriptor | None = None,
    catalog: Catalog | None = None,
) -> Collection:
    dataset = commit.document.get("data_source")
    if descriptor is None and dataset:
        try:
            descriptor = (catalogs.default() if catalog is None else catalog)[dataset]
        except UnknownDatasetError:
            descriptor = None  # built elsewhere, with a catalogue that is not here
    return Collection(
        open_commit(place, commit),
        name=commit.name,
        descriptor=descriptor,
        infos=infos_of(commit.document),
        storage=storage,
        place=place,
        commit=commit,
        report=report or BuildReport.from_lasting(commit.report),
    )


def _catalog_file(text: str) -> str:
    """A catalogue's own file, when the folder that holds it is named; absolute, so that hrefs
    resolve."""
    if "://" in text:
        return text
    path = Path(text).expanduser().absolute()
    return str(path / "catalog.json" if path.is_dir() else path)


def _candidates(text: str, workspace_dir: str | os.PathLike[str] | None) -> list[str]:
    if "://" in text:
        return [text]
    found = [str(Path(text).expanduser())]
    if _NAME.fullmatch(text):
        found.append(f"{workspace(workspace_dir).rstrip('/')}/{text}")
    return found


def _as_table(table: Any) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    if hasattr(table, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(table).read_all()
    if hasattr(table, "to_table"):
        return table.to_table()
    raise ArgumentError(f"{type(table).__name__} is no table that Arrow can read")
