"""The commands. Each is a few lines: read the arguments, call the library, show what it returns."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from rasteret_dask import repairs, resources
from rasteret_dask.cli import catalogs, clusters, holdings
from rasteret_dask.cli import demo as demo_run
from rasteret_dask.cli.console import (
    Custom,
    Debug,
    DryRun,
    Json,
    Sets,
    completed,
    reported,
    show_account,
    show_line,
    show_plan,
    show_repairs,
    show_units,
)
from rasteret_dask.cli.where import Cluster, Storage, computing
from rasteret_dask.documents import Lines
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import config, foreach, unitpage
from rasteret_dask.pipeline.check import check
from rasteret_dask.pipeline.progress import progress_shown
from rasteret_dask.pipeline.report import page as report_page
from rasteret_dask.pipeline.run import explain as explain_pipeline
from rasteret_dask.pipeline.run import record_url
from rasteret_dask.pipeline.run import run as run_pipeline
from rasteret_dask.write.target import put_bytes

app = typer.Typer(
    name="rasteret-dask",
    help="Read cloud GeoTIFFs at scale: headers indexed once, pixels as lazy Dask cubes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, and those may be secrets
)
for command in (holdings.build, holdings.append, holdings.export, holdings.sample):
    app.command()(command)
app.command("info")(catalogs.collections_info)
app.add_typer(catalogs.datasets, name="datasets")
app.add_typer(catalogs.collections, name="collections")
app.add_typer(clusters.cluster, name="cluster")

Pipeline = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or a pipeline that ships.", autocompletion=completed("pipelines")
    ),
]


def main() -> None:
    """Run the command line."""
    app()


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("rasteret-dask"))
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say it.")
    ] = False,
) -> None:
    """Read cloud GeoTIFFs at scale: headers indexed once, pixels as lazy Dask cubes."""


def _read(pipeline: str, sets: list[str], allow_custom: bool) -> config.Pipeline:
    """The pipeline, checked, so that whatever is wrong in the file is told with its line."""
    source = resources.find(pipeline, "pipelines")
    what = config.from_file(source, sets)
    try:
        if what.foreach is None:  # its units are checked one by one
            check(what, allow_custom=allow_custom)
    except ConfigError as error:
        raise Lines(source, sets).told(error) from None
    return what


def _sets(given: list[str] | None, storage: str | None) -> list[str]:
    """What is said on the command line, over what the file says."""
    named = [] if storage is None else [f"collection.storage={json.dumps(storage)}"]
    return [*(given or ()), *named]


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
        what = _read(pipeline, _sets(set_, storage), allow_custom)
        with computing(cluster) as client, progress_shown() as progress:
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
        what = _read(pipeline, set_ or [], allow_custom)
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
        what = _read(pipeline, set_ or [], allow_custom=True)
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
        with computing(cluster) as client, progress_shown() as progress:
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
