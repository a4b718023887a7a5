"""A small STAC API for tests: it really filters by time and footprint, counts, and pages."""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
from shapely.geometry import box, mapping, shape

from rasteret_dask.index.times import parse_range

START = datetime(2023, 1, 1)


class StacApi(ThreadingHTTPServer):
    """A STAC API that really filters by time and footprint, counts, pages, and remembers what it
    was asked; what begins with the time `broken` dies at its second page, and any `status` but 200
    is the answer to every search; `refusals` are those of the next ones."""

    def __init__(self, items: list[dict[str, Any]], page: int = 10) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.items, self.page = items, page
        self.searches, self.asked = Counter[str](), list[dict[str, Any]]()
        self.broken, self.status = "", 200
        self.refusals = list[int]()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

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
    server: StacApi

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
                "conformsTo": [f"{base}/core", f"{base}/item-search", f"{base}/item-search#query"],
                "links": [
                    {"rel": "self", "href": self.server.url},
                    {**search, "type": "application/geo+json"},
                ],
            },
        )

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        start, when = int(asked.get("token", 0)), asked.get("datetime", "")
        self.server.asked.append(asked)
        self.server.searches[when] += 1
        if self.server.refusals:
            self.answer(self.server.refusals.pop(0), {"description": "later"})
            return
        if self.server.status != 200:
            self.answer(self.server.status, {"description": "no"})
            return
        if when == "../..":  # as stac-server and pgstac do
            self.answer(400, {"description": "an open interval has one end at least"})
            return
        if self.server.broken and start and when.startswith(self.server.broken):
            self.answer(400, {"description": "the page loop died"})
            return
        found = self.server.find(asked)
        end = start + self.server.page
        links = []
        if end < len(found):
            body, href = {**asked, "token": end}, f"{self.server.url}/search"
            links.append({"rel": "next", "href": href, "method": "POST", "body": body})
        self.answer(
            200,
            {
                "type": "FeatureCollection",
                "features": found[start:end],
                "links": links,
                "numberMatched": len(found),
            },
        )


def item(number: int, href: str, rng: np.random.Generator, *, interval: bool) -> dict[str, Any]:
    """An item somewhere in 32 days and 17 degrees."""
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
