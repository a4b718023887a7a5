"""Commands about a collection: build it, add to it, copy it, take samples of it."""

from __future__ import annotations

from typing import Annotated, Any

import pyarrow.parquet
import typer

from rasteret_dask import api
from rasteret_dask.cli.catalogs import Workspace, facts
from rasteret_dask.cli.console import (
    Debug,
    DryRun,
    Json,
    Known,
    known_datasets,
    reported,
    show,
    show_line,
    show_plan,
)
from rasteret_dask.cli.where import Cluster, Storage, computing
from rasteret_dask.documents import validate as validated
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import forecast
from rasteret_dask.pipeline.inputs import build as build_collection
from rasteret_dask.pipeline.inputs import read_vector
from rasteret_dask.pipeline.progress import progress_shown
from rasteret_dask.pipeline.sources import Build
from rasteret_dask.storage.settings import named
from rasteret_dask.write.target import put_file, scratch_file


def build(
    name: Annotated[str, typer.Option(help="What to call the collection.")],
    dataset: Annotated[
        str | None,
        typer.Argument(help="A dataset of the catalogue.", autocompletion=known_datasets),
    ] = None,
    bbox: Annotated[str | None, typer.Option(help="west,south,east,north in degrees.")] = None,
    dates: Annotated[str | None, typer.Option(help="first/last, as 2023-06-01/2023-08-31.")] = None,
    stac_api: Annotated[str | None, typer.Option(help="A STAC API to search.")] = None,
    collection: Annotated[str | None, typer.Option(help="Its collection.")] = None,
    static_catalog: Annotated[str | None, typer.Option(help="A static catalogue.")] = None,
    band: Annotated[
        list[str] | None, typer.Option(metavar="NAME=ASSET", help="Which asset holds a band.")
    ] = None,
    workspace_dir: Workspace = None,
    force: Annotated[bool, typer.Option(help="Replace a collection of that name.")] = False,
    dry_run: DryRun = False,
    cluster: Cluster = None,
    storage: Storage = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Read the headers of a search into a collection."""
    with reported(debug):
        values: dict[str, Any] = {
            "dataset": dataset,
            "stac_api": stac_api,
            "static_catalog": static_catalog,
            "collection": collection,
            "name": name,
            "bbox": None if bbox is None else _split(bbox, ",", 4, "--bbox"),
            "date_range": None if dates is None else _split(dates, "/", 2, "--dates"),
            "band_map": dict(_split(pair, "=", 2, "--band") for pair in band) if band else None,
            "workspace_dir": workspace_dir,
            "force": force,
        }
        what = validated(Build, values)
        if dry_run:
            named(storage)  # refused as the build would
            show_plan(forecast.of_build(what), as_json=as_json)
            return
        with computing(cluster), progress_shown() as progress:
            progress.stage("collection")
            built, headers = build_collection(what, storage)
        cost = {} if built.report is None else {"retries": built.report.retries}
        show({**facts(built, as_json), "headers": headers, **cost}, as_json=as_json)


def _split(text: str, by: str, count: int, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(by)]
    if len(parts) != count:
        raise ConfigError(f"{text!r} has {len(parts)} parts, not {count}", path=option)
    return parts


def append(
    path: Known,
    items: Annotated[
        str | None, typer.Option(help="A file of STAC items; by default its search made again.")
    ] = None,
    refresh: Annotated[
        bool, typer.Option(help="Read headers again where files changed or could not be read.")
    ] = False,
    dry_run: DryRun = False,
    cluster: Cluster = None,
    storage: Storage = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Add what is new since a collection was built."""
    with reported(debug):
        if dry_run:
            standing = api.load(path, storage=named(storage))
            show_plan(forecast.of_append(standing, items, refresh=refresh), as_json=as_json)
            return
        with computing(cluster), progress_shown() as progress:
            progress.stage("collection")
            before = api.load(path, storage=named(storage))
            now = before.append(items)
            if refresh:
                progress.stage("headers that changed")
                now = now.refresh()
        show({**facts(now, as_json), "added": len(now) - len(before)}, as_json=as_json)


def export(
    path: Known,
    target: Annotated[str, typer.Argument(help="A folder, or URL of one, that holds nothing yet.")],
    partition_by: Annotated[
        list[str] | None, typer.Option(help="A column that becomes folders, as year.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a collection as plain GeoParquet that every reader opens."""
    with reported(debug):
        collection = api.load(path)
        if dry_run:
            show_plan(forecast.of_export(collection, target, partition_by or ()), as_json=as_json)
            return
        written = collection.export(target, partition_by=partition_by or ())
        said = {"target": written, "items": len(collection)}
        show_line(written, said, as_json=as_json)


def sample(
    path: Known,
    points: Annotated[str, typer.Argument(help="A vector file of points, or GeoParquet.")],
    output: Annotated[str, typer.Argument(help="A Parquet file.")],
    band: Annotated[list[str] | None, typer.Option(help="A band; all by default.")] = None,
    dry_run: DryRun = False,
    cluster: Cluster = None,
    storage: Storage = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Read the pixels under points, of every item."""
    with reported(debug):
        frame = read_vector(points, "points")
        if dry_run:
            plan = forecast.of_samples(api.load(path, storage=named(storage)), frame, band)
            show_plan({**plan, "output": output}, as_json=as_json)
            return
        with computing(cluster), progress_shown() as progress:
            progress.stage("points")
            table = api.load(path, storage=named(storage)).sample_points(frame, band)
        with scratch_file(".parquet") as scratch:
            pyarrow.parquet.write_table(table, scratch, compression="zstd")
            put_file(scratch, output)
        show_line(output, {"output": output, "rows": table.num_rows}, as_json=as_json)
