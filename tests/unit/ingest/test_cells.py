"""Searches in pieces: together the cells hold each item once, and one that fails costs itself."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import box, mapping, shape

import rasteret_dask as rd
from rasteret_dask.errors import CollectionError, DuplicateItemError
from rasteret_dask.index.times import parse_range
from rasteret_dask.ingest import cells
from rasteret_dask.ingest.cells import cut_search, spread
from rasteret_dask.ingest.stac import Search
from rasteret_dask.testing.cog import make_cog

PAGE = 10
START = datetime(2023, 1, 1)


class Api(ThreadingHTTPServer):
    """A STAC API that really filters by time and footprint, counts, and pages by ten."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.items, self.searches, self.broken = items, Counter[str](), ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def find(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        start, end = parse_range(asked["datetime"]) if "datetime" in asked else (None, None)
        area = box(*asked["bbox"]) if "bbox" in asked else None
        found = []
        for item in self.items:
            properties = item["properties"]
            first = parse_range(properties["start_datetime"] or properties["datetime"])[0]
            last = parse_range(properties["end_datetime"] or properties["datetime"])[1]
            assert first is not None
            assert last is not None
            if (end is not None and first > end) or (start is not None and last < start):
                continue
            if area is None or shape(item["geometry"]).intersects(area):
                found.append(item)
        return found


class Handler(BaseHTTPRequestHandler):
    server: Api

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        base = "https://api.stacspec.org/v1.0.0"
        search = {"rel": "search", "href": f"{self.server.url}/search", "method": "POST"}
        self.answer(
            200,
            {
                "type": "Catalog",
                "id": "api",
                "description": "x",
                "stac_version": "1.0.0",
                "conformsTo": [f"{base}/core", f"{base}/item-search"],
                "links": [
                    {"rel": "self", "href": self.server.url},
                    {**search, "type": "application/geo+json"},
                ],
            },
        )

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        start, when = int(asked.get("token", 0)), asked.get("datetime", "")
        self.server.searches[when] += 1
        if self.server.broken and start and when.startswith(self.server.broken):
            self.answer(400, {"description": "the page loop died"})
            return
        found = self.server.find(asked)
        links = []
        if start + PAGE < len(found):
            body, href = {**asked, "token": start + PAGE}, f"{self.server.url}/search"
            links.append({"rel": "next", "href": href, "method": "POST", "body": body})
        self.answer(
            200,
            {
                "type": "FeatureCollection",
                "features": found[start : start + PAGE],
                "links": links,
                "numberMatched": len(found),
            },
        )


def item(number: int, href: str, rng: np.random.Generator, *, interval: bool) -> dict[str, Any]:
    moment = START + timedelta(seconds=int(rng.integers(0, 32 * 86400)))
    west, south = rng.uniform(-3, 13, 2)
    square = box(west, south, west + 1.1, south + 1.1)
    # A footprint that leaves the western edge of its box empty in the south, as swaths do.
    footprint = square.difference(box(west, south, west + 0.7, south + 0.9))
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"i{number:05d}",
        "bbox": list(square.bounds),
        "geometry": mapping(footprint),
        "properties": {
            "datetime": None if interval else moment.isoformat() + "Z",
            "start_datetime": moment.isoformat() + "Z" if interval else None,
            "end_datetime": (moment + timedelta(days=5)).isoformat() + "Z" if interval else None,
        },
        "links": [],
        "assets": {"red": {"href": href, "type": "image/tiff; application=geotiff"}},
    }


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
def api(href: str) -> Iterator[Api]:
    rng = np.random.default_rng(7)
    server = Api([item(k, href, rng, interval=k % 3 == 0) for k in range(400)])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELL_ITEMS", 40)
    monkeypatch.setattr(spread, "__kwdefaults__", {"least": 100})


def build(api: Api, where: Path, **options: Any) -> rd.Collection:
    options = {"date_range": ("2023-01-03", "2023-01-28"), "bbox": (0, 0, 10, 10), **options}
    return rd.build_from_stac(
        stac_api=api.url, collection="c", name="c", workspace_dir=where, **options
    )


@pytest.mark.parametrize("count", [1, 2, 8, 64, 256])
@pytest.mark.parametrize("area", [None, (0.0, 0.0, 10.0, 10.0), (2.5, -1.0, 2.6, 14.0)])
def test_cells_hold_each_item_once(api: Api, count: int, area: Any) -> None:
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


def test_a_spread_search_builds_what_one_search_would(api: Api, tmp_path: Path) -> None:
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


def test_a_page_loop_that_dies_costs_its_slice(api: Api, tmp_path: Path) -> None:
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
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells.Cell, "owns", lambda self, item: True)
    with pytest.raises(DuplicateItemError, match="two slices"):
        build(api, tmp_path)


def test_what_speaks_of_the_whole_is_searched_whole(api: Api) -> None:
    span = {"collection": "c", "bbox": None, "date_range": ("2023-01-03", "2023-01-28")}
    assert spread(api.url, Search.of(**span, options={})) is not None
    for options in ({"max_items": 300}, {"ids": ["i00001"]}, {"sortby": "id"}):
        assert spread(api.url, Search.of(**span, options=options)) is None
