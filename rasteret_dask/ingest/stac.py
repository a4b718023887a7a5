"""STAC items from an API, from a static catalogue, or from whatever a caller has already.

State: ``_migrations``, a lock that is held while pystac learns once how to bring old items up to date.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pystac
import urllib3

from rasteret_dask.errors import ArgumentError, EmptySelectionError
from rasteret_dask.grid.geobox import Bounds
from rasteret_dask.index.geometries import check_bbox, split_bbox, wrap_span
from rasteret_dask.index.times import Range, format_range, parse_instant, parse_range
from rasteret_dask.ingest.asking import (
    DOCUMENTS,
    UNREADABLE,
    Documents,
    api_errors,
    open_api,
    unreadable,
)
from rasteret_dask.ingest.sortby import in_order
from rasteret_dask.storage.urls import public

Json = Mapping[str, Any]

_migrations = threading.Lock()


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for.

    Parameters
    ----------
    collection : str, optional
        STAC collection; all of a static catalogue without one.
    bbox : tuple of float, optional
        lon/lat.
    date_range : pair, optional
        As `times.parse_range` returns.
    options : mapping
        Passed to the API as they are: ``query``, ``filter``, ``intersects``, ``ids``, ``sortby``,
        ``max_items``.
    """

    collection: str | None = None
    bbox: Bounds | None = None
    date_range: Range | None = None
    options: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls, collection: str | None, bbox: Any, date_range: Any, options: Mapping[str, Any]
    ) -> Search:
        """Check and normalise what a caller gave.

        Parameters
        ----------
        collection : str, optional
        bbox : tuple of float, optional
            ``(west, south, east, north)`` in lon/lat.
        date_range : optional
            As ``"2023-06"`` or ``(first, last)``.
        options : mapping
            The search's other arguments; those that are None are left out.

        Raises
        ------
        ArgumentError
            The box or the dates mean nothing.
        """
        span = None if date_range is None else parse_range(date_range)
        return cls(
            collection,
            None if bbox is None else check_bbox(bbox),
            # APIs refuse a range that is open at both ends, which is none.
            None if span == (None, None) else span,
            {key: value for key, value in options.items() if value is not None},
        )

    def describe(self) -> dict[str, Any]:
        """As JSON: what a build's identity is made of."""
        return {
            "collection": self.collection,
            "bbox": None if self.bbox is None else list(self.bbox),
            "date_range": None if self.date_range is None else format_range(self.date_range),
            **{k: _plain(v) for k, v in (self.options or {}).items()},
        }


def _plain(value: Any) -> Any:
    return getattr(value, "__geo_interface__", value)


def search_api(url: str, search: Search) -> list[Json]:
    """Items of a STAC API.

    A box over the antimeridian is searched in two halves, because servers differ in what they make
    of it.

    Raises
    ------
    SourceError
        The API cannot be reached or refuses; `TransientError` when trying again may help.
    EmptySelectionError
        Nothing was found.
    """
    boxes: list[Bounds | None] = [None] if search.bbox is None else [*split_bbox(search.bbox)]
    found: dict[str, Json] = {}
    with api_errors(url):
        client = open_api(url)
        for box in boxes:
            for item in _pages(client, search, box).items_as_dicts():
                _keep(found, item)
    options = search.options or {}
    most = options.get("max_items")
    items = list(found.values())
    if most is not None and len(boxes) > 1:  # each half may hold as many as were asked for
        items = in_order(items, options.get("sortby"))[:most]
    return _some(items, search, url)


def _pages(client: Any, search: Search, box: Bounds | None, **more: Any) -> Any:
    return client.search(
        collections=None if search.collection is None else [search.collection],
        bbox=box,
        datetime=None if search.date_range is None else format_range(search.date_range),
        **{**dict(search.options or {}), **more},
    )


@dataclass(frozen=True, slots=True)
class Overview:
    """What an API says of a search before it is made.

    Parameters
    ----------
    matched : int
        Items in all.
    first, last : datetime, optional
        From when to when; None where neither the search nor the collection says.
    sample : tuple of mapping
        The first items.
    """

    matched: int
    first: datetime | None
    last: datetime | None
    sample: tuple[Json, ...]


def overview(url: str, search: Search, least: int) -> Overview | None:
    """How large a search is; None when it is smaller than `least`, or the API does not count.

    Raises
    ------
    SourceError
        The API failed.
    """
    boxes: list[Bounds | None] = [None] if search.bbox is None else [*split_bbox(search.bbox)]
    with api_errors(url):
        client = open_api(url)
        pages: list[Json] = [
            next(iter(_pages(client, search, box).pages_as_dicts()), {}) for box in boxes
        ]
        counts = [_matched(page) for page in pages]
        matched = sum(count or 0 for count in counts)
        if None in counts or matched < least:
            return None
        sample = [item for page in pages for item in page.get("features") or ()]
        first, last = search.date_range or (None, None)
        if search.collection is not None and (first is None or last is None):
            for start, end in client.get_collection(search.collection).extent.temporal.intervals:
                first = first or (None if start is None else parse_instant(start))
                last = last or (None if end is None else parse_instant(end))
    return Overview(matched, first, last, tuple(sample))


def _matched(page: Json) -> int | None:
    # The second spelling is that of APIs before 1.0.
    found = page.get("numberMatched", (page.get("context") or {}).get("matched"))
    return found if isinstance(found, int) else None


def _keep(found: dict[str, Json], item: Json) -> None:
    # Equal ids with different content stay apart; the duplicate is reported later, by name.
    key = item["id"]
    if key in found and found[key] != item:
        key = f"{key}\0{len(found)}"
    found[key] = item


def search_static(url: str, search: Search) -> list[Json]:
    """Items of a static catalogue, filtered here; hrefs made absolute.

    Raises
    ------
    SourceError
        A document cannot be read.
    EmptySelectionError
        Nothing was found.
    """
    options = dict(search.options or {})
    ids, limit = options.pop("ids", None), options.pop("max_items", None)
    if options:
        raise ArgumentError(
            f"a static catalogue cannot be searched by {', '.join(sorted(options))}",
            hint="filter the collection afterwards, with subset() or where()",
        )
    found: list[Json] = [
        item
        for item in _walk(url, search.collection)
        if (ids is None or item["id"] in ids) and _matches(item, search)
    ]
    return _some(found[:limit], search, url)


def _walk(url: str, collection: str | None) -> Iterator[dict[str, Any]]:
    _learn_migrations()
    try:
        with urllib3.PoolManager(maxsize=DOCUMENTS) as pool:
            root = pystac.read_file(url, stac_io=Documents(pool))
            if not isinstance(root, pystac.Catalog):
                raise ArgumentError("the document is no STAC catalogue", url=public(url))
            if collection is not None and root.id != collection:
                inner = [c for c in root.get_collections() if c.id == collection]
                if not inner:
                    names = ", ".join(c.id for c in root.get_collections())
                    raise ArgumentError(
                        f"no collection {collection!r} in the catalogue",
                        hint=f"collections: {names}",
                    )
                root = inner[0]
            links = [link for one, _, _ in root.walk() for link in one.get_item_links()]
            # One document an item, each a request of its own where the catalogue is far away.
            with ThreadPoolExecutor(DOCUMENTS) as threads:
                for link in threads.map(lambda one: one.resolve_stac_object(root=root), links):
                    item = link.target
                    item.make_asset_hrefs_absolute()
                    yield item.to_dict(include_self_link=False, transform_hrefs=False)
    except UNREADABLE as error:
        raise unreadable(error, url) from None


def _learn_migrations() -> None:
    """Have pystac find the extensions that are installed.

    It does so when it reads for the first time, and takes itself for done before it is: a second build in another thread then had items as
    they were written, other properties and so other parts than the first.
    """
    with _migrations:
        pystac.EXTENSION_HOOKS.get_extended_object_links(pystac.Catalog("any", "any"))


def _matches(item: Json, search: Search) -> bool:
    return _in_box(item, search.bbox) and _in_range(item, search.date_range)


def _in_box(item: Json, bbox: Bounds | None) -> bool:
    box = item.get("bbox")
    if bbox is None or not box:
        return bbox is None
    half = len(box) // 2
    west, east = wrap_span(float(box[0]), float(box[half]))
    mine: Bounds = (west, box[1], east, box[half + 1])
    return any(
        a[0] <= b[2] and a[2] >= b[0] and a[1] <= b[3] and a[3] >= b[1]
        for a in split_bbox(mine)
        for b in split_bbox(bbox)
    )


def _in_range(item: Json, span: Range | None) -> bool:
    if span is None:
        return True
    properties = item.get("properties") or {}
    one = properties.get("datetime")
    first = parse_instant(properties.get("start_datetime") or one)
    last = parse_instant(properties.get("end_datetime") or one)
    start, end = span
    return (end is None or first <= end) and (start is None or last >= start)


def _some(items: list[Json], search: Search, url: str) -> list[Json]:
    if not items:
        said = ", ".join(f"{k}={v!r}" for k, v in search.describe().items() if v is not None)
        raise EmptySelectionError(
            f"the search found no item ({said or 'no condition'})", url=public(url)
        )
    return items


# --- items that somebody has already -------------------------------------------------------------
def read_items(source: Any) -> list[Json]:
    """Items as plain mappings, from items, an ItemCollection, or a file of either (JSON or NDJSON).

    Raises
    ------
    ArgumentError
        Something in it is no item.
    EmptySelectionError
        There are none.
    """
    if isinstance(source, (str, Path)):
        items = _from_file(Path(source))
    elif isinstance(source, Mapping):
        items = _from_json(source, None)
    elif isinstance(source, pystac.Item):
        items = [_absolute(source)]
    elif isinstance(source, Iterable):
        items = [one for value in source for one in _one_or_more(value)]
    else:
        raise ArgumentError(f"{type(source).__name__} holds no items")
    if not items:
        raise EmptySelectionError("there are no items")
    for item in items:
        if "assets" not in item or "id" not in item:
            raise ArgumentError(f"{str(item)[:60]}… is no STAC item")
    return items


def _one_or_more(value: Any) -> list[Json]:
    if isinstance(value, Mapping):
        return _from_json(value, None)
    if isinstance(value, pystac.Item):
        return [_absolute(value)]
    raise ArgumentError(f"{type(value).__name__} is no STAC item")


def _absolute(item: pystac.Item) -> Json:
    if item.get_self_href():
        item = item.clone()
        item.make_asset_hrefs_absolute()
    found: Json = item.to_dict(include_self_link=False, transform_hrefs=False)
    return found


def _from_file(path: Path) -> list[Json]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path} cannot be read: {error}") from None
    base = path.resolve().as_posix()
    try:
        return _from_json(json.loads(text), base)
    except json.JSONDecodeError:
        pass
    try:
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise ArgumentError(f"{path} is neither JSON nor NDJSON: {error}") from None
    return [item for line in lines for item in _from_json(line, base)]


def _from_json(value: Any, base: str | None) -> list[Json]:
    if isinstance(value, list):
        return [item for one in value for item in _from_json(one, base)]
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{str(value)[:60]!r} is no STAC item")
    if value.get("type") == "FeatureCollection":
        return _from_json(list(value.get("features") or []), base)
    return [_resolved(value, base)]


def _resolved(item: Json, base: str | None) -> Json:
    """The item with hrefs resolved: against its own self link, else against the file it came
    from."""
    links = item.get("links") or []
    own = next((k["href"] for k in links if k.get("rel") == "self" and "://" in k["href"]), base)
    if own is None:
        return item
    assets = {
        key: {**asset, "href": _joined(own, str(asset["href"]))} if asset.get("href") else asset
        for key, asset in (item.get("assets") or {}).items()
    }
    return {**item, "assets": assets}


def _joined(base: str, href: str) -> str:
    """A link as it is meant beside another; `urljoin` knows no buckets, whose paths are as those of the web."""
    scheme, _, rest = base.partition("://")
    if not rest or "://" in href or scheme in ("http", "https", "file"):
        return urljoin(base, href)
    found = urljoin(f"https://{rest}", href)
    # A link may have a scheme of its own without slashes: file:/data/a.tif.
    return scheme + found.removeprefix("https") if found.startswith("https://") else found
