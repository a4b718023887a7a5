"""The commands. Each is a few lines: read the arguments, call the library, show what it returns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet
import typer
from distributed import Client

from rasteret_dask import api, repairs, resources
from rasteret_dask.cli import catalogs, clusters
from rasteret_dask.cli import demo as demo_run
from rasteret_dask.cli.catalogs import Workspace, facts
from rasteret_dask.cli.console import (
    Custom,
    Debug,
    DryRun,
    Json,
    Known,
    Sets,
    completed,
    known_datasets,
    reported,
    show,
    show_account,
    show_line,
    show_plan,
    show_repairs,
    show_units,
)
from rasteret_dask.cluster import profiles
from rasteret_dask.documents import validate as validated
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import config, foreach, forecast, unitpage
from rasteret_dask.pipeline.check import check
from rasteret_dask.pipeline.inputs import build as build_collection
from rasteret_dask.pipeline.inputs import read_vector
from rasteret_dask.pipeline.progress import progress_shown
from rasteret_dask.pipeline.report import page as report_page
from rasteret_dask.pipeline.run import explain as explain_pipeline
from rasteret_dask.pipeline.run import record_url
from rasteret_dask.pipeline.run import run as run_pipeline
from rasteret_dask.pipeline.sources import Build
from rasteret_dask.storage.settings import named
from rasteret_dask.write.target import put_bytes, put_file, scratch_file

app = typer.Typer(
    name="rasteret-dask",
    help="Read cloud GeoTIFFs at scale: headers indexed once, pixels as lazy Dask cubes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, and those may be secrets
)
app.command("info")(catalogs.collections_info)
app.add_typer(catalogs.datasets, name="datasets")
app.add_typer(catalogs.collections, name="collections")
app.add_typer(clusters.cluster, name="cluster")

Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="PROFILE",
        help="Where to compute: a YAML file, or a profile that ships (threads, local, address).",
        autocompletion=completed("configs/clusters"),
    ),
]

Storage = Annotated[
    str | None,
    typer.Option(
        metavar="PROFILE",
        help="How rasters are reached: a YAML file, or a profile that ships (unsigned, earthdata).",
    ),
]


Pipeline = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or a pipeline that ships.", autocompletion=completed("pipelines")
    ),
]


def main() -> None:
    """Run the command line."""
    app()


def _sets(given: list[str] | None, storage: str | None) -> list[str]:
    """What is said on the command line, over what the file says."""
    named = [] if storage is None else [f"collection.storage={json.dumps(storage)}"]
    return [*(given or ()), *named]


@contextmanager
def _computing(cluster: str | None) -> Iterator[Client | None]:
    if cluster is None:
        yield None
        return
    profile = profiles.from_file(resources.find(cluster, "configs/clusters"))
    with profiles.open_profile(profile) as client:
        yield client


@app.command()
def run(
    pipeline: Pipeline,
    set_: Sets = None,
    cluster: Cluster = None,
    storage: Storage = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with the same run that was broken off.")
    ] = False,
    dry_run: DryRun = False,
    allow_custom: Custom = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a pipeline: build or load, open, mask, compute, write."""
    with reported(debug, resumes=True):
        what = config.from_file(resources.find(pipeline, "pipelines"), _sets(set_, storage))
        with _computing(cluster) as client, progress_shown() as progress:
            if dry_run:
                show_plan(_plan(what, allow_custom), as_json=as_json)
                return
            options: dict[str, Any] = {"client": client, "progress": progress, "resume": resume}
            if what.foreach is None:
                account = run_pipeline(what, allow_custom=allow_custom, **options)
            else:
                told = foreach.run_each(what, allow_custom=allow_custom, **options)
        if what.foreach is None:
            show_account(account, as_json=as_json)
        else:
            show_units(told, as_json=as_json)


@app.command()
def explain(
    pipeline: Pipeline,
    set_: Sets = None,
    allow_custom: Custom = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a pipeline would read, and what that costs; no pixel is touched."""
    with reported(debug):
        what = config.from_file(resources.find(pipeline, "pipelines"), set_ or ())
        with progress_shown() as progress:
            progress.stage("collection")
            plan = _plan(what, allow_custom)
        show_plan(plan, as_json=as_json)


def _plan(what: config.Pipeline, allow_custom: bool) -> dict[str, Any]:
    """Of the pipeline, or of the first of its units with their number."""
    if what.foreach is None:
        return explain_pipeline(what, allow_custom=allow_custom)
    units = foreach.units(what, allow_custom=allow_custom)
    if not units:
        return {"pipeline": what.name, "units": 0}
    first = units[0]
    plan = explain_pipeline(first.pipeline, area=first.area, allow_custom=allow_custom)
    return {"units": len(units), "first": first.id, **plan}


@app.command()
def validate(
    pipeline: Pipeline,
    set_: Sets = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a pipeline from end to end without reading anything but the file."""
    with reported(debug):
        what = config.from_file(resources.find(pipeline, "pipelines"), set_ or ())
        shape = check(what)
        flat = "a cube" if shape.time else "an image"
        kind = "a table" if shape.table else "chips" if shape.chips else flat
        said = {"pipeline": what.name, "result": kind, "variables": shape.variables}
        text = f"{what.name}: fine; {kind} of {', '.join(shape.variables)}"
        show_line(text, said, as_json=as_json)


@app.command()
def repair(
    record: Annotated[
        list[str], typer.Argument(help="The record of a run, as out.zarr.run.json, or of a cube.")
    ],
    target: Annotated[
        str | None, typer.Option(help="The Zarr store that a cube was written to.")
    ] = None,
    dry_run: DryRun = False,
    cluster: Cluster = None,
    allow_custom: Custom = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Read again what a run could not read, and mend its store where that was missing."""
    with reported(debug):
        if dry_run:
            plans = [
                repairs.forecast(one, target, allow_custom=allow_custom).as_dict() for one in record
            ]
            for plan in [{"repairs": plans}] if as_json and len(plans) > 1 else plans:
                show_plan(plan, as_json=as_json)
            return
        with _computing(cluster) as client, progress_shown() as progress:
            options: dict[str, Any] = {"client": client, "progress": progress}
            done = [
                repairs.repair(one, target, allow_custom=allow_custom, **options) for one in record
            ]
        show_repairs(done, as_json=as_json)


@app.command()
def report(
    record: Annotated[
        str,
        typer.Argument(
            help="The record of a run, as out.zarr.run.json, or the pipeline that was run: all its units.",
            autocompletion=completed("pipelines"),
        ),
    ],
    set_: Sets = None,
    output: Annotated[
        str | None,
        typer.Option(help="The page; beside the record, or NAME.report.html for all units."),
    ] = None,
    each: Annotated[bool, typer.Option(help="Write a page of every unit, too.")] = False,
    allow_custom: Custom = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a run, or all units of one, as one HTML page that needs nothing else."""
    with reported(debug):
        what = None
        if record.endswith((".yaml", ".yml")) or record in resources.names("pipelines"):
            what = config.from_file(resources.find(record, "pipelines"), set_ or ())
            record = record_url(what)
        elif set_:
            raise ConfigError("a record says all that is needed; it takes no --set", path="--set")
        said: dict[str, Any] = {}
        if what is not None and what.foreach is not None:
            target = output or f"{what.name}.report.html"
            made = unitpage.page(what, target, each=each, allow_custom=allow_custom)
            text, said = made.html, {"units": dict(made.states)}
        else:
            target = output or unitpage.page_of(record)
            text = report_page(record)
        put_bytes(text.encode(), target)
        show_line(target, {"report": target, **said}, as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of pipelines; editors complete and check with it."""
    typer.echo(json.dumps(config.schema(), indent=1))


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the data and the results.")] = Path(
        "demo-output"
    ),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a small catalogue, serve it on this machine, and run the NDVI pipeline on a cluster."""
    with reported(debug):
        with progress_shown() as progress:
            account = demo_run.run(output, progress)
        show_account(account, as_json=as_json)


@app.command()
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
            show_plan(forecast.of_build(what), as_json=as_json)
            return
        with _computing(cluster), progress_shown() as progress:
            progress.stage("collection")
            built, headers = build_collection(what, storage)
        cost = {} if built.report is None else {"retries": built.report.retries}
        show({**facts(built, as_json), "headers": headers, **cost}, as_json=as_json)


def _split(text: str, by: str, count: int, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(by)]
    if len(parts) != count:
        raise ConfigError(f"{text!r} has {len(parts)} parts, not {count}", path=option)
    return parts


@app.command()
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
        with _computing(cluster), progress_shown() as progress:
            progress.stage("collection")
            before = api.load(path, storage=named(storage))
            now = before.append(items)
            if refresh:
                progress.stage("headers that changed")
                now = now.refresh()
        show({**facts(now, as_json), "added": len(now) - len(before)}, as_json=as_json)


@app.command()
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
            show_plan(forecast.of_export(collection, target), as_json=as_json)
            return
        written = collection.export(target, partition_by=partition_by or ())
        said = {"target": written, "items": len(collection)}
        show_line(written, said, as_json=as_json)


@app.command()
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
        with _computing(cluster), progress_shown() as progress:
            progress.stage("points")
            table = api.load(path, storage=named(storage)).sample_points(frame, band)
        with scratch_file(".parquet") as scratch:
            pyarrow.parquet.write_table(table, scratch, compression="zstd")
            put_file(scratch, output)
        show_line(output, {"output": output, "rows": table.num_rows}, as_json=as_json)
