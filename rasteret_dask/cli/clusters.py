"""Commands about where a job runs."""

from __future__ import annotations

import os
from typing import Annotated, Any

import dask
import typer
from distributed import Client

from rasteret_dask import resources
from rasteret_dask.cli.console import Debug, Json, human, reported, show, show_line
from rasteret_dask.cluster import profiles
from rasteret_dask.cluster.plugins import difference, installed
from rasteret_dask.errors import PipelineError

cluster = typer.Typer(help="Cluster profiles.", no_args_is_help=True)
_OF_DASK = ("dask", "distributed", "python")


@cluster.command("list")
def cluster_list(as_json: Json = False) -> None:
    """List the profiles that ship."""
    names = resources.names("configs/clusters")
    show_line("\n".join(names), {"profiles": names}, as_json=as_json)


@cluster.command("check")
def cluster_check(
    profile: Annotated[str, typer.Argument(help="A YAML file, or a profile that ships.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Start or reach a cluster, ask its workers what they are, and leave it."""
    with reported(debug):
        found = profiles.from_file(resources.find(profile, "configs/clusters"))
        with profiles.open_profile(found) as client:
            facts = _threads() if client is None else _facts(client)
        show(facts if as_json else _readable(facts), as_json=as_json)


def _threads() -> dict[str, Any]:
    return {"kind": "threads", "threads": dask.config.get("num_workers", None) or os.cpu_count()}


def _facts(client: Client) -> dict[str, Any]:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise PipelineError(
            "the scheduler is there, and has no workers",
            hint="start some; those of an adaptive profile start with the first work, unless adapt.minimum says more",
        )
    # A task has been there and back on every one of them.
    answered = client.run(os.getpid)
    return {
        "kind": "cluster",
        "scheduler": client.scheduler.address,
        "workers": len(answered),
        "threads": sum(worker["nthreads"] for worker in workers.values()),
        "memory": sum(worker["memory_limit"] for worker in workers.values()),
        "differing": _differing(client),
    }


def _differing(client: Client) -> list[str]:
    """Packages of workers that are not those of this process: Dask's own, and those of which pixels and plans are made."""
    versions = client.get_versions()
    workers = versions["workers"]
    here = _of_dask(versions["client"]) | installed()
    # As each worker says of itself; one that has not our package at all says so here.
    told = client.run(installed, on_error="return")
    found = []
    for address, worker in workers.items():
        own = told.get(address)
        there = _of_dask(worker) | (own if isinstance(own, dict) else dict.fromkeys(installed()))
        different = difference(here, there)
        found += [f"{address}: {different}"] if different else []
    return found


def _of_dask(said: Any) -> dict[str, str | None]:
    return {name: said["packages"].get(name) for name in _OF_DASK}


def _readable(facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, "memory": human(facts["memory"])} if "memory" in facts else facts
