"""The lowest digital numbers are held against the Sentinel-2 offset that metadata promises."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from distributed import Client, LocalCluster
from handmade import Scene, austria_scenes, collect

import rasteret_dask as rd
from rasteret_dask import errors
from rasteret_dask.testing.cog import make_cog


def scene(path: Path, item: str, lowest: int, baseline: str, **columns: Any) -> rd.Collection:
    rng = np.random.default_rng(1)
    values = np.exp(rng.normal(6.5, 0.8, (512, 512))).clip(1, 8000) + lowest
    values[:40] = 0
    file = make_cog(path / f"{item}.tif", values.astype(np.uint16), nodata=0, overviews=0)
    properties = {"s2:processing_baseline": baseline, "collection": "sentinel-2-l2a", **columns}
    return collect(Scene(item, {"red": file}, columns=properties))


def warned(collection: rd.Collection, **how: Any) -> list[str]:
    return told(lambda: collection.get_xarray(**how).compute())


def told(read: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        read()
    return [str(w.message) for w in found if issubclass(w.category, errors.RasteretWarning)]


@pytest.mark.parametrize("how", [{"scale": True}, {"harmonize": "sentinel-2", "masked": True}])
def test_numbers_that_have_lost_their_1000_already(tmp_path: Path, how: dict[str, Any]) -> None:
    item = f"lost-{'scale' in how}"
    collection = scene(tmp_path, item, 0, "05.00")
    (said,) = warned(collection, chunks={"y": 256}, **how)
    assert item in said
    assert f"offsets={{'{item}': 0}}" in said
    # Told better, it is silent; nor does it say a thing twice.
    assert warned(collection, offsets={item: 0}, **how) == []
    assert warned(collection, **how) == []


def test_numbers_that_have_their_1000_still(tmp_path: Path) -> None:
    collection = scene(tmp_path, "still", 1000, "03.00")
    (said,) = warned(collection, scale=True)
    assert "offsets={'still': -1000}" in said
    assert warned(collection, scale=True, offsets={"still": -1000}) == []


def test_numbers_that_agree(tmp_path: Path) -> None:
    assert warned(scene(tmp_path, "new", 1000, "05.10"), scale=True) == []
    assert warned(scene(tmp_path, "old", 0, "02.09"), scale=True) == []
    applied = {"earthsearch:boa_offset_applied": True}
    assert warned(scene(tmp_path, "applied", 0, "05.10", **applied), scale=True) == []
    # Stored numbers as they are: nothing is promised, nothing is doubted.
    assert warned(scene(tmp_path, "stored", 0, "05.10")) == []


def test_real_scenes_are_not_doubted_but_a_false_offset_is(austria: Path) -> None:
    found = austria_scenes(austria)[:2]
    right = collect(*found)
    assert warned(right, bands=["red"], scale=True, groupby="id") == []
    told = {s.id: -1000 for s in found}
    said = warned(right, bands=["red"], scale=True, groupby="id", offsets=told)
    assert len(said) == 2


WINDOWS: dict[str, Callable[..., Any]] = {
    "numpy": lambda c, area, **how: c.get_numpy(area, **how),
    "gdf": lambda c, area, **how: c.get_gdf(area, **how),
    "gdf by band": lambda c, area, **how: c.get_gdf(area, per="band", **how),
}
TILE = shapely.box(499_999, 5_194_879, 505_121, 5_200_001)


@pytest.mark.parametrize("kind", list(WINDOWS))
def test_windows_and_rows_are_held_against_it_too(tmp_path: Path, kind: str) -> None:
    item = f"window-{kind}"
    collection = scene(tmp_path, item, 0, "05.00")
    how: dict[str, Any] = {"geometry_crs": "EPSG:32633", "scale": True}
    read = WINDOWS[kind]
    # Neither stored numbers, nor an offset that agrees, nor few pixels say anything.
    assert told(lambda: read(collection, TILE, geometry_crs="EPSG:32633")) == []
    assert told(lambda: read(collection, TILE, **how, offsets={item: 0})) == []
    small = [shapely.box(500_000 + x, 5_198_000, 500_640 + x, 5_198_640) for x in (0, 640)]
    assert told(lambda: read(collection, small, **how)) == []
    (said,) = told(lambda: read(collection, TILE, **how))
    assert f"{item}, red" in said
    assert f"offsets={{'{item}': 0}}" in said
    assert told(lambda: read(collection, TILE, **how)) == []
    assert warned(collection, scale=True) == []  # a cube would say the same


@pytest.mark.parametrize("kind", ["numpy", "gdf"])
def test_what_a_file_masks_is_no_low_number(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(2).integers(1050, 5000, (512, 512)).astype(np.uint16)
    hidden = np.zeros((512, 512), bool)
    hidden[:200] = True
    values[hidden] = 7
    file = make_cog(tmp_path / "a.tif", values, overviews=0, mask=~hidden)
    columns = {"s2:processing_baseline": "05.00", "collection": "sentinel-2-l2a"}
    collection = collect(Scene(f"masked-{kind}", {"red": file}, columns=columns))
    how: dict[str, Any] = {"geometry_crs": "EPSG:32633", "scale": True}
    assert told(lambda: WINDOWS[kind](collection, TILE, **how)) == []


def test_points_are_too_few_to_tell(tmp_path: Path) -> None:
    collection = scene(tmp_path, "points", 0, "05.00")
    spots = np.random.default_rng(2).uniform((500_010, 5_195_000), (505_000, 5_199_000), (5000, 2))
    assert told(lambda: collection.sample_points(spots, geometry_crs=32633, scale=True)) == []


@pytest.mark.slow
def test_a_workers_doubt_reaches_the_client(tmp_path: Path) -> None:
    collection = scene(tmp_path, "far", 0, "05.00")
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster),
        warnings.catch_warnings(record=True) as found,
    ):
        warnings.simplefilter("always")
        collection.get_xarray(scale=True).compute()
        until = time.monotonic() + 60
        while time.monotonic() < until and not any("far" in str(w.message) for w in found):
            time.sleep(0.1)
    assert any("far" in str(w.message) for w in found)
