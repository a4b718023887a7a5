"""Open collections: by name, path, URL or id; wrap tables; keep ids of one's own."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from rasteret_dask import catalog as catalogs
from rasteret_dask.catalog import Catalog
from rasteret_dask.collection import Collection
from rasteret_dask.errors import (
    ArgumentError,
    CollectionError,
    UnknownDatasetError,
)
from rasteret_dask.grid.arrow import plain_table
from rasteret_dask.index import schema
from rasteret_dask.index.commit import Commit, is_begun, read_commit
from rasteret_dask.index.dataset import (
    TableView,
    check_columns,
    in_memory,
    open_commit,
    open_parquet,
)
from rasteret_dask.index.foreign import as_rows
from rasteret_dask.index.place import Place
from rasteret_dask.ingest.report import BuildReport
from rasteret_dask.model import BandInfo, DatasetDescriptor, StorageOptions

WORKSPACE = "RASTERET_DASK_WORKSPACE"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def workspace(workspace_dir: str | os.PathLike[str] | None = None) -> str:
    """Where collections are kept: the argument, else ``$RASTERET_DASK_WORKSPACE``, else
    ``~/rasteret_workspace``."""
    chosen = workspace_dir or os.environ.get(WORKSPACE) or Path.home() / "rasteret_workspace"
    text = os.fspath(chosen)
    # Workers, and this process later, may be at home elsewhere.
    return text if "://" in text else str(Path(text).expanduser().absolute())


def storage_of(descriptor: DatasetDescriptor | None) -> StorageOptions:
    """How a dataset's rasters are reached, as the catalogue says."""
    if descriptor is None:
        return StorageOptions()
    options = dict(descriptor.storage)
    # Said beside the region, but they are the recipe's.
    ours: dict[str, str] = {
        name: options.pop(name) for name in ("unsigned", "requester_pays") if name in options
    }
    auth = descriptor.requires_auth or ("aws" if ours else None)
    return StorageOptions(options=options, auth=auth, auth_options=ours)


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
            kept = StorageOptions(
                options=commit.arguments.get("storage") or {},
                auth=commit.arguments.get("auth"),
                auth_options=commit.arguments.get("auth_options") or {},
            )
            return open_place(place, commit, storage=storage or kept, catalog=catalog)
    if snapshot is not None:
        raise CollectionError(f"no snapshot {snapshot} of {text!r}")
    for url in _candidates(text, workspace_dir):
        place = Place(url, options)
        if "://" not in text and not _is_there(place):
            continue
        view = _of_others(place)
        if view is None:
            return load(path, workspace_dir=workspace_dir, storage=storage, catalog=catalog)
        # Ours and rasteret both say of which dataset the rows are.
        source = (view.schema.metadata or {}).get(b"data_source", b"").decode()
        known = catalogs.default() if catalog is None else catalog
        described = known[source] if source in known else None  # noqa: SIM401 -- a catalogue has no KeyError
        rows = as_collection(
            view,
            name=Path(text).stem,
            descriptor=described,
            storage=storage or storage_of(described),
        )
        return replace(rows, reached=options)
    known = catalogs.default() if catalog is None else catalog
    if text in known:
        descriptor = known[text]
        if descriptor.parquet is None:
            raise CollectionError(f"{text!r} is not published as a collection", hint="build() it")
        # What a commit says stands above a descriptor that says nothing.
        says = bool(descriptor.requires_auth or descriptor.storage)
        found = load(
            descriptor.parquet, storage=storage or (storage_of(descriptor) if says else None)
        )
        infos = found.infos or _described(found.schema, descriptor)
        return replace(found, descriptor=descriptor, infos=infos, reached=storage)
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
    name : str
    descriptor : DatasetDescriptor, optional
        Of the dataset that the rows are of.
    storage : StorageOptions, optional
        How the rasters are reached; by default as the descriptor says.

    Raises
    ------
    CollectionError
        A column is missing.
    DuplicateItemError
        Two rows have one id.
    """
    view = table if hasattr(table, "dataset") else in_memory(as_rows(_as_table(table)))
    check_columns(view.schema)
    document = schema.document(view.schema)
    return Collection(
        view,
        name=name or document.get("name", ""),
        descriptor=descriptor,
        infos=schema.band_infos(document) or _described(view.schema, descriptor),
        storage=storage or storage_of(descriptor),
    )


def list_collections(workspace_dir: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """What `Collection.describe` says of each collection in the workspace, by name, and its ``url``.

    Folders that hold no collection are passed over.
    """
    root = workspace(workspace_dir)
    place = Place(root)
    found = []
    for name in place.folders():
        try:
            one = load(place.join(name))
        except CollectionError:
            continue
        found.append({**one.describe(), "name": name, "url": place.join(name)})
    return found


def register_local(
    dataset: str,
    collection: str | os.PathLike[str],
    *,
    title: str = "",
    description: str = "",
    license: str = "",
    path: str | os.PathLike[str] | None = None,
) -> DatasetDescriptor:
    """Give a collection an id in the user's own catalogue, so that `load` finds it by that.

    Parameters
    ----------
    dataset : str
        The id, as ``mine/orchards``.
    collection : str
        Its path, URL, or name in the workspace.
    title, description, license : str
    path : str, optional
        The catalogue's file.

    Raises
    ------
    CollectionError
        There is no such collection.
    ArgumentError
        Its rasters are reached by a recipe with options of its own, which only a collection that was built here keeps.
    """
    found = load(collection)
    if found.place is not None:
        url = found.place.url
    else:
        places = _candidates(os.fspath(collection), None)
        url = next((u for u in places if "://" in u or _is_there(Place(u))), places[0])
    if "://" not in url:
        url = str(Path(url).absolute())
    named = {info.name: info for info in found.infos}
    # A commit says itself how its rasters are reached.
    reached = StorageOptions() if found.commit is not None else found.storage
    lost = sorted(set(reached.auth_options) - {"unsigned", "requester_pays"})
    if lost:
        raise ArgumentError(
            f"the recipe {reached.auth!r} has options ({', '.join(lost)}) that a descriptor does not hold",
            hint="register it without storage=, and give that to load()",
        )
    descriptor = DatasetDescriptor(
        id=dataset,
        title=title or found.name,
        description=description,
        license=license,
        parquet=url,
        bands=tuple(named.get(b) or BandInfo(name=b, asset=b) for b in found.bands),
        requires_auth=reached.auth,
        storage={**reached.options, **reached.auth_options},
    )
    catalogs.register(descriptor, path)
    return descriptor


def open_place(
    place: Place,
    commit: Commit,
    *,
    storage: StorageOptions,
    report: BuildReport | None = None,
    descriptor: DatasetDescriptor | None = None,
    catalog: Catalog | None = None,
) -> Collection:
    """The collection of a commit.

    Parameters
    ----------
    place : Place
    commit : Commit
    storage : StorageOptions
        How the rasters are reached.
    report : BuildReport, optional
        Of a build that was just made; otherwise what the commit keeps of it.
    descriptor : DatasetDescriptor, optional
        By default the one that the catalogue has under the commit's dataset.
    catalog : Catalog, optional
    """
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
        infos=schema.band_infos(commit.document),
        storage=storage,
        place=place,
        commit=commit,
        report=report or BuildReport.from_lasting(commit.report),
    )


def _described(columns: pa.Schema, descriptor: DatasetDescriptor | None) -> tuple[BandInfo, ...]:
    """What a descriptor says of a table's bands, which may go by the names of their assets, as rasteret's older collections do."""
    found = []
    for name in schema.band_names(columns):
        told = () if descriptor is None else descriptor.bands
        exact = [info for info in told if info.name == name]
        by_asset = [info for info in told if info.asset == name]
        if exact:
            found.append(exact[0])
        elif len(by_asset) == 1:
            known = by_asset[0]
            found.append(replace(known, name=name, aliases=(known.name, *known.aliases)))
    return tuple(found)


def _of_others(place: Place) -> TableView | None:
    """The Parquet that lies in a place; None where a build of ours has committed meanwhile.

    Raises
    ------
    CollectionError
        It is no collection, or one whose build has not come to its end: parts appear one by one.
    """
    view, problem = None, None
    if not is_begun(place):
        try:
            view = open_parquet(place)
        except CollectionError as error:
            problem = error
    if is_begun(place):
        if read_commit(place) is not None:
            return None
        raise CollectionError(
            "no collection yet: its build has begun and not come to its end",
            url=place.url,
            hint="wait for it, or build it again: what is done is kept",
        )
    if problem is not None:
        raise problem
    return view


def _is_there(place: Place) -> bool:
    if place.is_local:
        return os.path.exists(place.path())
    return bool(place.list("") or place.folders())


def _candidates(text: str, workspace_dir: str | os.PathLike[str] | None) -> list[str]:
    if "://" in text:
        return [text]
    found = [str(Path(text).expanduser().absolute())]
    if NAME.fullmatch(text):
        found.append(f"{workspace(workspace_dir).rstrip('/')}/{text}")
    return found


def _as_table(table: Any) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    if hasattr(table, "__arrow_c_stream__"):
        return plain_table(pa.RecordBatchReader.from_stream(table).read_all())
    if hasattr(table, "to_table"):
        return table.to_table()
    raise ArgumentError(f"{type(table).__name__} is no table that Arrow can read")
