"""``explain``: held to the server's counters for every kind of plan, and readable as a table, as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from affine import Affine
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask.plan.costs import BandCost
from rasteret_dask.plan.explain import Explanation
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

LEFT, TOP, SIDE = 500_000.0, 5_200_000.0, 160

pytestmark = pytest.mark.usefixtures("beginnings")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    """Three items of one step, each with its own place, tiling or zone, and a mask band; incompressible, so that ranges differ."""
    path = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(41)
    places = (
        ("a", LEFT, TOP, "EPSG:32633", 32),
        ("b", LEFT + 800, TOP - 330, "EPSG:32633", 64),
        ("c", LEFT + 459_400, TOP + 6000, "EPSG:32632", 32),
    )
    for name, left, top, crs, block in places:
        for band, res in (("red", 10), ("nir", 10), ("m", 20)):
            high = 4 if band == "m" else 60_000
            side = SIDE * 10 // res
            image = rng.integers(0, high, (side, side)).astype("u1" if band == "m" else "u2")
            if band == "nir":
                image[: side // 2, : side // 2] = 0  # sparse tiles are not fetched
            make_cog(
                path / f"{name}{band}.tif",
                image,
                transform=Affine(res, 0, left, 0, -res, top),
                crs=crs,
                nodata=0,
                blocksize=block,
                overviews=1,
                sparse=True,
            )
    with RangeServer(path) as found:
        yield found


@pytest.fixture(scope="module")
def collection(server: RangeServer) -> rd.Collection:
    def scene(name: str, day: int, second: int) -> Scene:
        files = {band: f"{server.url}/{name}{band}.tif" for band in ("red", "nir", "m")}
        return Scene(f"{name}{day}", files, f"2023-07-0{day}T10:00:0{second}")

    # One file in two items, as after a reprocessing that moved nothing.
    again = Scene(
        "a1-again",
        {b: f"{server.url}/a{b}.tif" for b in ("red", "nir", "m")},
        "2023-07-01T10:00:05",
    )
    made = [scene(name, day, k) for day in (1, 2) for k, name in enumerate("abc")]
    return collect(*made, again)


PLACE = {"crs": "EPSG:32633", "groupby": "solar_day", "fill_value": 0}
CASES: dict[str, dict[str, Any]] = {
    "mosaics": {},
    "one file in two items of a chunk": {"chunks": {"time": -1, "y": 50, "x": 70}},
    "a tile a task": {"chunks": "tile"},
    "dilated masks": {"mask": {"band": "m", "drop": [1], "dilate": 90}, "masked": True},
    "wide kernels": {"resampling": "cubic", "resolution": 13, "chunks": {"y": 64, "x": 64}},
    "overviews": {"resolution": 20, "resampling": "average"},
    "another projection": {"crs": "EPSG:3857", "resolution": 25, "resampling": "bilinear"},
    "bands that must agree": {"mosaic_mask": "all", "chunks": {"y": 100, "x": 100}},
    "scaled and harmonised": {"scale": True, "harmonize": "sentinel-2", "fill_value": None},
}


@pytest.mark.parametrize("name", CASES)
def test_requests_and_bytes_are_the_servers_count(
    collection: rd.Collection, server: RangeServer, name: str
) -> None:
    how = {**PLACE, "bands": ["red", "nir"], **CASES[name]}
    if "harmonize" in how:
        how["offsets"] = dict.fromkeys(collection.to_table(["id"])["id"].to_pylist(), -1000.0)
    told = collection.explain(**how)
    server.reset()
    cube = collection.get_xarray(**how)
    # Bands one after the other: files that both read are read for each.
    for band in cube.data_vars:
        cube[band].data.compute(scheduler="sync")
    seen = server.counters()
    assert (told.requests, told.bytes) == (seen.requests, seen.bytes)
    assert told.total.tasks == sum(cube[band].data.npartitions for band in cube.data_vars)
    largest = max(np.prod(cube[band].data.chunksize) for band in cube.data_vars)
    assert told.total.peak_chunk_bytes == largest * cube.red.dtype.itemsize
    assert 0 < told.used_share <= 1


@pytest.mark.parametrize("name", CASES)
def test_a_dataset_and_its_collection_tell_the_same(collection: rd.Collection, name: str) -> None:
    how = {**PLACE, "bands": ["red", "nir"], **CASES[name]}
    how.pop("harmonize", None)
    assert collection.get_xarray(**how).rasteret.explain() == collection.explain(**how)


def test_a_cube_of_nothing_costs_nothing(collection: rd.Collection) -> None:
    far = {
        "crs": "EPSG:32633",
        "bands": ["nir"],
        "fill_value": 0,
        "bbox": (15.001, 46.949, 15.004, 46.951),
        "groupby": "solar_day",
    }
    told = collection.explain(**far)
    assert told.requests == told.bytes == 0
    assert told.total.tasks > 0


# --- how it is shown -----------------------------------------------------------------------------
TOLD = Explanation(
    {
        "B04": BandCost(10, 2_500_000, 12, 4, 1000, 250, 3 * 2**20),
        "<b>&'": BandCost(5, 500_000, 6, 4, 1000, 1000, 2**20),
    }
)


def test_it_is_a_table() -> None:
    table = TOLD.to_table()
    assert table.column("band").to_pylist() == ["B04", "<b>&'"]
    assert table.column("requests").to_pylist() == [10, 5]
    assert table.column("used_share").to_pylist() == [0.25, 1.0]
    frame = table.to_pandas().set_index("band")
    assert frame["bytes"].sum() == TOLD.bytes == 3_000_000
    assert frame["peak_chunk_bytes"].max() == TOLD.total.peak_chunk_bytes == 3 * 2**20
    assert Explanation({}).to_table().schema == table.schema


def test_as_html_it_is_a_table_that_runs_nothing_and_takes_the_pages_colours() -> None:
    text = TOLD._repr_html_()
    page = ElementTree.fromstring(text)
    assert page.tag == "table"
    head = [cell.text for cell in page.iter("th") if cell.get("scope") == "col"]
    assert head == ["band", "requests", "MB", "tiles", "tasks", "used", "chunk MiB"]
    rows = [[cell.text for cell in row] for row in page.find("tbody").iter("tr")]  # type: ignore[union-attr]
    assert rows == [
        ["B04", "10", "2.50", "12", "4", "25%", "3.0"],
        ["<b>&'", "5", "0.50", "6", "4", "100%", "1.0"],
    ]
    total = [cell.text for cell in page.find("tfoot").iter() if cell.tag in ("th", "td")]  # type: ignore[union-attr]
    assert total == ["all", "15", "3.00", "18", "8", "62%", "3.0"]
    assert "<b>" not in text
    assert not any(word in text for word in ("http", "<script", "<style", "#fff", "white", "black"))


def test_as_text_every_column_is_aligned() -> None:
    lines = str(TOLD).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].split() == ["all", "15", "3.00", "18", "8", "62%", "3.0"]


def test_seconds_and_money() -> None:
    # 15 requests of which 5 are in flight: three times the latency; or the bytes, if they take longer.
    assert TOLD.seconds(latency=0.2, bandwidth=1e9, in_flight=5) == pytest.approx(0.6)
    assert TOLD.seconds(latency=0.2, bandwidth=1e6, in_flight=5) == pytest.approx(3.0)
    assert TOLD.money(per_thousand_gets=0.4, per_gigabyte=90.0) == pytest.approx(0.006 + 0.27)
