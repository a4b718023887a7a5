"""A small collection, and pipelines over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasteret_dask import api
from rasteret_dask.documents import parse
from rasteret_dask.pipeline import config
from rasteret_dask.testing.catalog import write_demo_catalog


@pytest.fixture
def scenes(tmp_path) -> Path:
    return write_demo_catalog(
        tmp_path / "scenes", size=64, dates=("2023-07-03", "2023-07-08"), blocksize=128
    )


@pytest.fixture
def collection(scenes, tmp_path):
    return api.build(
        "earthsearch/sentinel-2-l2a", name="c", static_catalog=scenes, workspace_dir=tmp_path
    )


@pytest.fixture
def make(collection, tmp_path):
    """A pipeline over the collection; call it with keys to change."""

    def pipeline(**changes) -> config.Pipeline:
        text = f"""
        version: 1
        collection: {{load: {tmp_path}/c}}
        cube: {{bands: [B04], crs: EPSG:32633, groupby: solar_day}}
        steps: [{{reduce: {{how: mean}}}}]
        outputs: [{{cog: {tmp_path}/out.tif}}]
        """
        return config.from_mapping({**parse(text), **changes})

    return pipeline
