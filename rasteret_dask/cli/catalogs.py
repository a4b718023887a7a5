"""Commands about what is known: datasets of the catalogue, collections of the workspace."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from fsspec.core import url_to_fs

from rasteret_dask import api, catalog
from rasteret_dask.cli.console import Debug, Json, Known, known_datasets, reported, show, show_line
from rasteret_dask.collection import Collection
from rasteret_dask.errors import ArgumentError, CollectionError

datasets = typer.Typer(help="Datasets that can be built by name.", no_args_is_help=True)
collections = typer.Typer(help="Collections of the workspace.", no_args_is_help=True)
Workspace = Annotated[str | None, typer.Option(help="Where collections live.")]
_POINTER = "_rasteret/current.json"


# --- datasets ------------------------------------------------------------------------------------
@datasets.command("list")
def datasets_list(as_json: Json = False, debug: Debug = False) -> None:
    """List the datasets that can be built by name."""
    with reported(debug):
        known = catalog.default()
        show({key: known[key].title for key in known}, as_json=as_json)


@datasets.command("info")
def datasets_info(
    dataset: Annotated[
        str, typer.Argument(help="As `datasets list` shows it.", autocompletion=known_datasets)
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Describe one dataset and its bands."""
    with reported(debug):
        values = dataclasses.asdict(catalog.default()[dataset])
        if not as_json:
            values["bands"] = [_band_line(band) for band in values["bands"]]
        show({key: value for key, value in values.items() if value}, as_json=as_json)


def _band_line(band: Mapping[str, Any]) -> str:
    names = [band["common_name"], *band["aliases"]]
    also = ", ".join(dict.fromkeys(name for name in names if name and name != band["name"]))
    return f"{band['name']:<8} asset {band['asset']}" + (f" ({also})" if also else "")


@datasets.command("register")
def datasets_register(
    file: Annotated[Path, typer.Argument(help="YAML with a key `datasets`, as those that ship.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Add the datasets of a file to your own catalogue; one of the same id is replaced."""
    with reported(debug):
        own = _own()
        added = catalog.read(file).descriptors
        for descriptor in added.values():
            own = own.register(descriptor)
        own.save(catalog.user_file())
        said = {"registered": list(added), "catalogue": catalog.user_file()}
        show_line("\n".join(added), said, as_json=as_json)


@datasets.command("unregister")
def datasets_unregister(
    dataset: Annotated[str, typer.Argument(help="An id of your own catalogue.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Take a dataset out of your own catalogue; those that ship stay."""
    with reported(debug):
        own = dict(_own().descriptors)
        if own.pop(dataset, None) is None:
            raise ArgumentError(
                f"{dataset} is not in {catalog.user_file()}",
                hint=f"it holds {', '.join(own) or 'nothing'}; what ships cannot be removed",
            )
        catalog.Catalog(own).save(catalog.user_file())
        said = {"unregistered": dataset, "catalogue": catalog.user_file()}
        show_line(dataset, said, as_json=as_json)


def _own() -> catalog.Catalog:
    path = catalog.user_file()
    return catalog.read(path) if path.exists() else catalog.Catalog({})


# --- collections ---------------------------------------------------------------------------------
@collections.command("list")
def collections_list(
    workspace_dir: Workspace = None, as_json: Json = False, debug: Debug = False
) -> None:
    """List the collections of the workspace."""
    with reported(debug):
        root = api.workspace(workspace_dir)
        fs, path = url_to_fs(root)
        names = []
        if fs.exists(path):
            entries = sorted(entry.rstrip("/") for entry in fs.ls(path, detail=False))
            names = [e.rsplit("/", 1)[-1] for e in entries if fs.exists(f"{e}/{_POINTER}")]
        lines = {name: _line(api.load(f"{root.rstrip('/')}/{name}")) for name in names}
        show(lines, as_json=as_json)


def _line(collection: Collection) -> str:
    first, last = (str(date)[:10] for date in collection.dates)
    bands = ", ".join(collection.bands)
    return f"{len(collection):,} items, {first} … {last}: {bands}"


@collections.command("info")
def collections_info(path: Known, as_json: Json = False, debug: Debug = False) -> None:
    """Say what a collection holds; no raster is touched."""
    with reported(debug):
        show(facts(api.load(path), as_json), as_json=as_json)


@collections.command("delete")
def collections_delete(
    name: Annotated[str, typer.Argument(help="A collection of the workspace, by its name.")],
    workspace_dir: Workspace = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Delete a collection: its table, not the rasters that it speaks of."""
    with reported(debug):
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ArgumentError(f"{name!r} is no name; collections are deleted by name alone")
        fs, path = url_to_fs(f"{api.workspace(workspace_dir).rstrip('/')}/{name}")
        if not fs.exists(f"{path}/{_POINTER}"):
            raise CollectionError(f"{path} is no collection, and is not deleted")
        if not yes:
            typer.confirm(f"Delete {path}?", abort=True, err=True)
        fs.rm_file(f"{path}/{_POINTER}")  # first, so that no half of it can be opened
        fs.rm(path, recursive=True)
        show_line(path, {"deleted": path}, as_json=as_json)


def facts(collection: Collection, as_json: bool) -> dict[str, Any]:
    """What is said of a collection."""
    said = collection.describe()
    if not as_json:
        several = {key: value for key, value in said.items() if isinstance(value, list | tuple)}
        said |= {key: ", ".join(map(str, value)) for key, value in several.items()}
    report = collection.report
    if report is not None and report.failure_count:
        said["unreadable"] = [f"{f.item} {f.band}: {f.reason}" for f in report.failures]
    return said
