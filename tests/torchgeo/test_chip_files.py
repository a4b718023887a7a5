"""The chips that a pipeline writes are a `RasterDataset` as they are."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from torchgeo.datasets import RasterDataset

from rasteret_dask import resources
from rasteret_dask.pipeline import config
from rasteret_dask.pipeline.run import run


class Chips(RasterDataset):
    """What someone would write for the files of ``training_chips``."""

    filename_glob = "*.tif"
    filename_regex = r".*_(?P<date>\d{8})\.tif"
    date_format = "%Y%m%d"
    all_bands = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def folder(demo, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("chips")
    sets = [
        f"collection.build.static_catalog={demo.root}/catalog.json",
        "collection.build.bbox=null",
        "collection.build.date_range=null",
        f"collection.build.workspace_dir={place}/workspace",
        "collection.subset=null",
        "cube.bbox=null",
        "cube.crs=EPSG:32633",
        "steps[0].chips={size: 128, min_valid: 0.5}",
        f"outputs=[{{chips: {place}/chips}}]",
    ]
    run(config.from_file(resources.find("training_chips", "pipelines"), sets))
    return place / "chips"


def test_torchgeo_indexes_and_reads_every_chip(folder):
    listed = geopandas.read_parquet(folder / "chips.parquet")
    dataset = Chips(paths=str(folder))
    assert len(dataset) == len(listed) > 5
    for file, left, right in zip(
        dataset.index.filepath, dataset.index.index.left, dataset.index.index.right, strict=True
    ):
        one = listed[listed.file == Path(file).name].iloc[0]
        assert left <= one.time <= right
        west, south, east, north = one.geometry.bounds
        query = (slice(west, east), slice(south, north), slice(left, right))
        image = dataset[query]["image"]
        with rasterio.open(file) as chip:
            expected = chip.read()
        assert image.shape[-2:] == (128, 128)
        found = image.numpy()
        same = (found == expected).all(axis=0)
        # Where a neighbour's edge is met TorchGeo merges; nothing else differs.
        assert same[1:-1, 1:-1].all()
        assert np.isin(expected, found).mean() > 0.95
