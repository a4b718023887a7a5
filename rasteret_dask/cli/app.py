"""The commands. Each is a few lines: read the arguments, call the library, show what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from distributed import Client

from rasteret_dask import api, catalog, resources
from rasteret_dask.cli import demo as demo_run
from rasteret_dask.cli.console import progress_shown, reported, show, show_account
from rasteret_dask.cluster import profiles
from rasteret_dask.collection import Collection
from rasteret_dask.documents import validate
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import config
from rasteret_dask.pipeline.run import build as build_collection
from rasteret_dask.pipeline.run import run as run_pipeline

app = typer.Typer(
    name="rasteret-dask",
    help="Read cloud GeoTIFFs at scale: headers indexed once, pixels as lazy Dask cubes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, and those may be secrets
)
datasets = typer.Typer(help="Datasets that can be built by name.", no_args_is_help=True)
app.add_typer(datasets, name="datasets")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="PROFILE",
        help="Where to compute: a YAML file, or a profile that ships (threads, local, address).",
    ),
]


def main() -> None:
    """Run the command line."""
    app()


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
    pipeline: Annotated[str, typer.Argument(help="A YAML file, or a pipeline that ships.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key; VALUE is YAML."),
    ] = None,
    cluster: Cluster = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a pipeline: build or load, open, mask, compute, write."""
    with reported(debug):
        what = config.from_file(resources.find(pipeline, "pipelines"), set_ or ())
        with _computing(cluster) as client, progress_shown() as progress:
            account = run_pipeline(what, client=client, progress=progress)
        show_account(account, as_json=as_json)


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
    dataset: Annotated[str | None, typer.Argument(help="A dataset of the catalogue.")] = None,
    bbox: Annotated[str | None, typer.Option(help="west,south,east,north in degrees.")] = None,
    dates: Annotated[str | None, typer.Option(help="first/last, as 2023-06-01/2023-08-31.")] = None,
    stac_api: Annotated[str | None, typer.Option(help="A STAC API to search.")] = None,
    collection: Annotated[str | None, typer.Option(help="Its collection.")] = None,
    static_catalog: Annotated[str | None, typer.Option(help="A static catalogue.")] = None,
    band: Annotated[
        list[str] | None, typer.Option(metavar="NAME=ASSET", help="Which asset holds a band.")
    ] = None,
    workspace_dir: Annotated[str | None, typer.Option(help="Where collections live.")] = None,
    force: Annotated[bool, typer.Option(help="Replace a collection of that name.")] = False,
    cluster: Cluster = None,
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
        what = validate(config.Build, values)
        with _computing(cluster), progress_shown() as progress:
            progress.stage("collection")
            built, headers = build_collection(what)
        show({**_facts(built, as_json), "headers": headers}, as_json=as_json)


def _split(text: str, by: str, count: int, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(by)]
    if len(parts) != count:
        raise ConfigError(f"{text!r} has {len(parts)} parts, not {count}", path=option)
    return parts


@app.command()
def info(
    path: Annotated[str, typer.Argument(help="A collection: folder, URL or name.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a collection holds; no raster is touched."""
    with reported(debug):
        show(_facts(api.load(path), as_json), as_json=as_json)


def _facts(collection: Collection, as_json: bool) -> dict[str, Any]:
    facts = collection.describe()
    if not as_json:
        several = {key: value for key, value in facts.items() if isinstance(value, list | tuple)}
        facts |= {key: ", ".join(map(str, value)) for key, value in several.items()}
    report = collection.report
    if report is not None and report.failure_count:
        facts["unreadable"] = [f"{f.item} {f.band}: {f.reason}" for f in report.failures]
    return facts


@datasets.command("list")
def datasets_list(as_json: Json = False, debug: Debug = False) -> None:
    """List the datasets that can be built by name."""
    with reported(debug):
        known = catalog.default()
        show({key: known[key].title for key in known}, as_json=as_json)


@datasets.command("info")
def datasets_info(
    dataset: Annotated[str, typer.Argument(help="As `datasets list` shows it.")],
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
