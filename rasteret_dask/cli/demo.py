"""The whole of it on one machine, with nothing but what ships: catalogue, server, cluster,
pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rasteret_dask import resources
from rasteret_dask.cluster import profiles
from rasteret_dask.pipeline import config
from rasteret_dask.pipeline.account import Progress, RunAccount
from rasteret_dask.pipeline.run import run as run_pipeline
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import RangeServer

_CLUSTER = profiles.Local(kind="local", workers=2, threads=1)


def run(output: Path, progress: Progress) -> RunAccount:
    """Make a catalogue of images under `output`, serve it on loopback, and run the NDVI pipeline.

    Parameters
    ----------
    output : Path
        Made when missing; holds ``catalog/``, ``workspace/`` and the three results.
    progress : Progress
        Told of the stages.

    Returns
    -------
    RunAccount
    """
    output = output.expanduser().resolve()
    output.mkdir(parents=True, exist_ok=True)
    progress.stage("make a catalogue of images")
    catalog = write_demo_catalog(output / "catalog")
    with RangeServer(catalog.parent) as server:
        pipeline = config.from_file(
            resources.find("ndvi_median", "pipelines"), changes(server.url, output)
        )
        progress.stage("start a cluster of two workers")
        with profiles.open_profile(_CLUSTER) as client:
            return run_pipeline(pipeline, client=client, progress=progress)


def changes(url: str, output: Path) -> list[str]:
    """What the shipped pipeline needs told to run on the catalogue served at `url`."""
    values: dict[str, Any] = {
        "name": "demo",
        "collection.build.static_catalog": f"{url.rstrip('/')}/catalog.json",
        "collection.build.name": "demo",
        "collection.build.bbox": None,
        "collection.build.date_range": None,
        "collection.build.workspace_dir": str(output / "workspace"),
        "collection.build.force": True,  # the server has another port each time
        "cube.bbox": None,
        "outputs[0].zarr": str(output / "ndvi.zarr"),
        "outputs[1].cog": str(output / "ndvi.tif"),
        "outputs[2].png": str(output / "ndvi.png"),
    }
    # JSON is YAML; a dollar sign in a folder's name is not a variable.
    return [f"{key}={json.dumps(value).replace('$', '$$')}" for key, value in values.items()]
