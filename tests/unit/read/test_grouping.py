"""Which items share a time step, and in which order: intervals without a moment, and orbits of radars and of cameras."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from affine import Affine
from handmade import Scene, collect

import rasteret_dask as rd
from rasteret_dask.index import schema
from rasteret_dask.read.grouping import make_steps, together
from rasteret_dask.testing.cog import make_cog

AT = Affine(10, 0, 500_000, 0, -10, 5_200_000)


def plain(path: Path, value: int) -> Path:
    array = np.full((32, 32), value, np.uint8)
    return make_cog(path / f"{value}.tif", array, transform=AT, nodata=0, overviews=0)


def interval(path: Path, name: str, value: int, first: str, last: str) -> Scene:
    """An item as others write it that has an interval, and no moment."""
    span = {"start_datetime": first, "end_datetime": last}
    times = {key: dt.datetime.fromisoformat(day) for key, day in span.items()}
    return Scene(name, {"v": plain(path, value)}, columns={"datetime": None, **times})


# --- intervals -----------------------------------------------------------------------------------
@pytest.mark.parametrize("joined", [False, True])
def test_years_without_a_moment_fall_into_their_own_year(tmp_path: Path, joined: bool) -> None:
    scenes = [
        interval(tmp_path, "a-2017", 1, "2017-01-01", "2017-12-31"),
        interval(tmp_path, "a-2018", 2, "2018-01-01", "2018-12-31"),
        interval(tmp_path, "b-2017", 3, "2017-01-01", "2017-12-31"),
    ]
    both = rd.concat([collect(s) for s in scenes]) if joined else collect(*scenes)
    cube = both.get_xarray(groupby="1YS", mosaic="count")
    years = cube.time.values.astype("datetime64[Y]").astype(str).tolist()
    assert years == ["2017", "2018"]
    assert cube.v.values[:, 0, 0].tolist() == [2, 1]
    assert cube.time_bnds.values[0].astype("datetime64[Y]").astype(str).tolist() == ["2017"] * 2
    assert both.get_xarray(groupby="1YS", mosaic="max").v.values[:, 0, 0].tolist() == [3, 2]


@pytest.mark.parametrize("joined", [False, True])
def test_the_first_of_intervals_is_the_one_that_begins_first(tmp_path: Path, joined: bool) -> None:
    scenes = [
        interval(tmp_path, "a", 1, "2017-06-01", "2017-06-30"),
        interval(tmp_path, "b", 2, "2017-02-01", "2017-02-28"),
        Scene("c", {"v": plain(tmp_path, 3)}, "2017-04-01T00:00:00"),
    ]
    found = rd.concat([collect(s) for s in scenes]) if joined else collect(*scenes)
    assert found.to_table(["id"])["id"].to_pylist() == ["b", "c", "a"]
    assert found.head(1).to_table(["id"])["id"].to_pylist() == ["b"]
    for mosaic, value in (("first", 2), ("last", 1)):
        cube = found.get_xarray(groupby="1YS", mosaic=mosaic)
        assert np.unique(cube.v.values).tolist() == [value]


@pytest.mark.parametrize("period", ["1D", "1W", "1ME", "1YS"])
def test_a_period_is_pandas_own_in_whatever_order_rows_come(period: str) -> None:
    days = pd.DatetimeIndex(["2018-03-01", "2017-01-05", "2018-02-28", "2017-01-01", "2017-12-31"])
    ids = [f"i{k}" for k in range(len(days))]
    table = pa.table({"id": ids, "datetime": pa.array(days).cast(schema.TIMESTAMP)})
    steps = make_steps(table, period)
    bins = {"1D": "D", "1W": "W-SUN", "1ME": "M", "1YS": "Y"}
    told = days.to_period(bins[period])
    expected = [sorted(set(told)).index(one) for one in told]
    assert steps.steps.tolist() == expected


# --- orbits --------------------------------------------------------------------------------------
def properties(corpus: Path, name: str, **changed: Any) -> dict[str, Any]:
    """Columns of a real item of Planetary Computer's."""
    folder = corpus / "stac-utils+stac-geoparquet" / "tests" / "data"
    item = json.loads((folder / f"{name}.json").read_text())[0]
    known = {n: item["properties"].get(n) for n in schema.PROPERTY_TYPES}
    return {**known, "collection": item["collection"], **changed}


@pytest.mark.parametrize("said", ["all", "no cloud cover", "no platform", "no collection"])
def test_optical_items_share_a_step_whatever_orbits_they_name(
    corpus: Path, tmp_path: Path, said: str
) -> None:
    unsaid = {
        "all": [],
        "no cloud cover": ["eo:cloud_cover"],
        "no platform": ["eo:cloud_cover", "platform"],
        "no collection": ["eo:cloud_cover", "collection"],
    }
    scenes = []
    for k, orbit in enumerate((22, 122, 65)):
        columns = properties(corpus, "sentinel-2-l2a-pc", **{"sat:relative_orbit": orbit})
        assert columns["sat:orbit_state"] == "ascending"
        columns |= dict.fromkeys(unsaid[said])
        file = plain(tmp_path, k + 1)
        scenes.append(Scene(f"i{k}", {"v": file}, f"2023-07-{k + 3:02d}T10:00:00", {}, columns))
    cube = collect(*scenes).get_xarray(groupby="1MS", mosaic="count")
    assert cube.v.values[:, 0, 0].tolist() == [3]


def radar(corpus: Path, tmp_path: Path) -> rd.Collection:
    orbits = [("descending", 51), ("ascending", 44), ("descending", 51)]
    scenes = []
    for k, (state, number) in enumerate(orbits):
        changed = {"sat:orbit_state": state, "sat:relative_orbit": number}
        columns = properties(corpus, "sentinel-1-rtc-pc", **changed)
        file = plain(tmp_path, k + 1)
        scenes.append(Scene(f"i{k}", {"v": file}, f"2023-07-{k + 3:02d}T10:00:00", {}, columns))
    return collect(*scenes)


def test_passes_of_a_radar_in_different_orbits_never_share_a_step(
    corpus: Path, tmp_path: Path
) -> None:
    cube = radar(corpus, tmp_path).get_xarray(groupby="1MS", mosaic="count")
    assert cube.v.values[:, 0, 0].tolist() == [2, 1]


def test_all_together_is_one_step_of_whatever_orbits(corpus: Path, tmp_path: Path) -> None:
    found = radar(corpus, tmp_path)
    for mosaic, value in (("mean", 2), ("count", 3), ("first", 1), ("last", 3)):
        cube = found.get_xarray(groupby=together, mosaic=mosaic)
        assert cube.v.values[:, 0, 0].tolist() == [value]


def test_keys_may_be_lists(tmp_path: Path) -> None:
    scenes = [
        Scene(f"i{k}", {"v": plain(tmp_path, k + 1)}, time)
        for k, time in enumerate(
            ("2023-07-03T10:00:00", "2023-07-09T10:00:00", "2023-08-01T10:00:00")
        )
    ]

    def months(rows: pa.Table) -> list[list[int]]:
        return [[d.year, d.month] for d in rows["datetime"].to_pylist()]

    cube = collect(*scenes).get_xarray(groupby=months, mosaic="count")
    assert cube.v.values[:, 0, 0].tolist() == [2, 1]
