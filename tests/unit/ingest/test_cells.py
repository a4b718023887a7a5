"""Searches in pieces: together the cells hold each item once, and one that fails costs itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stacapi import START, StacApi, item

import rasteret_dask as rd
from rasteret_dask.errors import CollectionError, DuplicateItemError
from rasteret_dask.index.times import parse_range
from rasteret_dask.ingest import cells
from rasteret_dask.ingest.cells import cut_search, spread
from rasteret_dask.ingest.stac import Search
from rasteret_dask.testing.cog import make_cog


@pytest.fixture
def href(tmp_path: Path) -> str:
    pixels = np.ones((32, 32), "uint16")
    make_cog(
        tmp_path / "red.tif",
        pixels,
        transform=(10, 0, 0, 0, -10, 0),
        crs="EPSG:32633",
        blocksize=32,
    )
    return str(tmp_path / "red.tif")


@pytest.fixture
def api(href: str) -> Iterator[StacApi]:
    rng = np.random.default_rng(7)
    with StacApi([item(k, href, rng, interval=k % 3 == 0) for k in range(400)]) as server:
        yield server


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELL_ITEMS", 40)
    monkeypatch.setattr(spread, "__kwdefaults__", {"least": 100})


def build(api: StacApi, where: Path, **options: Any) -> rd.Collection:
    options = {"date_range": ("2023-01-03", "2023-01-28"), "bbox": (0, 0, 10, 10), **options}
    return rd.build_from_stac(
        stac_api=api.url, collection="c", name="c", workspace_dir=where, **options
    )


@pytest.mark.parametrize("count", [1, 2, 8, 64, 256])
@pytest.mark.parametrize("area", [None, (0.0, 0.0, 10.0, 10.0), (2.5, -1.0, 2.6, 14.0)])
def test_cells_hold_each_item_once(api: StacApi, count: int, area: Any) -> None:
    span = ("2023-01-03", "2023-01-28")
    search = Search.of("c", area, span, {})
    first, last = parse_range(span)
    assert first is not None
    assert last is not None
    pieces = cut_search(api.url, search, (first, last), count)
    assert len(pieces) == (count if area or count <= 16 else 16)
    found: list[str] = []
    for cell in pieces:
        asked = cell.search.describe()
        answer = api.find(
            {k: v for k, v in asked.items() if v is not None} | {"datetime": asked["date_range"]}
        )
        found += [one["id"] for one in answer if cell.owns(one)]
    whole = api.find(
        {"datetime": search.describe()["date_range"]} | ({"bbox": area} if area else {})
    )
    assert sorted(found) == sorted(one["id"] for one in whole)


@pytest.mark.parametrize("dates", [None, "../..", (None, None)])
@pytest.mark.parametrize("count", [1, 2])
def test_no_dates_are_asked_for_where_there_are_none(api: StacApi, dates: Any, count: int) -> None:
    """Not even as a range that is open at both ends, which servers refuse."""
    search = Search.of("c", (0.0, 0.0, 10.0, 10.0), dates, {})
    assert search.describe()["date_range"] is None
    pieces = cut_search(api.url, search, (START, START + timedelta(days=32)), count)
    found = [one["id"] for cell in pieces for one in cells.search_cell(cell)]
    assert sorted(found) == sorted(one["id"] for one in api.find({"bbox": (0, 0, 10, 10)}))
    assert [("datetime" in asked) for asked in api.asked] == [count > 1] * len(api.asked)


def test_a_spread_search_builds_what_one_search_would(api: StacApi, tmp_path: Path) -> None:
    pieces = build(api, tmp_path / "pieces")
    expected = api.find({"datetime": "2023-01-03/2023-01-28", "bbox": (0, 0, 10, 10)})
    assert sorted(pieces.to_table(["id"])["id"].to_pylist()) == sorted(i["id"] for i in expected)
    report = pieces.report
    assert report is not None
    assert report.slices > 4
    assert (report.items, report.headers, report.warnings) == (len(expected), len(expected), ())
    keys = pieces.to_table(["datetime", "id"]).to_pylist()
    assert keys == sorted(keys, key=lambda row: (row["datetime"], row["id"]))
    whole = build(api, tmp_path / "whole", max_items=1000)  # which one search must answer
    assert whole.report is not None
    assert whole.to_table().equals(pieces.to_table())


def test_a_page_loop_that_dies_costs_its_slice(api: StacApi, tmp_path: Path) -> None:
    calm = build(api, tmp_path / "calm")
    every = dict(api.searches)
    # A cell of more than one page; its second page fails.
    paged = [
        when for when, pages in every.items() if pages > 1 and "03T00:00:00Z/2023-01-28" not in when
    ]
    api.broken = paged[len(paged) // 2]
    with pytest.raises(CollectionError, match=r"1 of \d+ slices failed.*page loop died"):
        build(api, tmp_path / "again")
    assert not (tmp_path / "again" / "c" / "data").exists()
    api.broken = ""
    api.searches.clear()
    again = build(api, tmp_path / "again")
    assert set(api.searches) == {
        paged[len(paged) // 2],
        "2023-01-03T00:00:00Z/2023-01-28T23:59:59.999999Z",
    }
    assert again.to_table().equals(calm.to_table())
    assert again.report is not None
    assert again.report.reused == again.report.slices - 1


def test_the_same_item_in_two_slices_is_refused(
    api: StacApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells.Cell, "owns", lambda self, item: True)
    with pytest.raises(DuplicateItemError, match="two slices"):
        build(api, tmp_path)


def test_what_speaks_of_the_whole_is_searched_whole(api: StacApi) -> None:
    span = {"collection": "c", "bbox": None, "date_range": ("2023-01-03", "2023-01-28")}
    assert spread(api.url, Search.of(**span, options={})) is not None
    for options in ({"max_items": 300}, {"ids": ["i00001"]}, {"sortby": "id"}):
        assert spread(api.url, Search.of(**span, options=options)) is None


def test_append_searches_in_cells_too(api: StacApi, tmp_path: Path) -> None:
    every = list(api.items)
    api.items = every[:150] + every[200:350]
    first = build(api, tmp_path / "grown")
    api.items = every
    api.searches.clear()
    grown = first.append()
    assert len(api.searches) > 4  # cells, each with a span of its own
    assert sorted(grown.to_table(["id"])["id"].to_pylist()) == sorted(
        one["id"] for one in api.find({"datetime": "2023-01-03/2023-01-28", "bbox": (0, 0, 10, 10)})
    )
    assert grown.report is not None
    assert grown.report.items == len(grown) - len(first) > 20
    assert grown.report.warnings == ()
    keys = grown.to_table(["datetime", "id"]).to_pylist()
    assert keys == sorted(keys, key=lambda row: (row["datetime"], row["id"]))
    assert grown.to_table().equals(build(api, tmp_path / "whole").to_table())
    assert grown.append().commit == grown.commit  # nothing is new


def test_a_cell_of_an_append_that_dies_costs_itself(api: StacApi, tmp_path: Path) -> None:
    every = list(api.items)
    api.items = every[:200]
    first = build(api, tmp_path)
    api.items = every
    api.broken = "2023-01-16T00:00:00Z/"  # half of the time: where a cell begins
    with pytest.raises(CollectionError, match=r"1 of \d+ slices failed.*page loop died"):
        first.append()
    assert rd.load("c", workspace_dir=tmp_path).commit == first.commit
    api.broken = ""
    grown = first.append()
    assert grown.report is not None
    assert grown.report.reused > 3  # what the others had found was kept
    assert len(grown) == len(first) + grown.report.items
