"""Pages of collections: parsed as XML, and measured."""

from __future__ import annotations

import datetime as dt
import re
import time
from importlib.util import find_spec
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib as mpl
import pyarrow as pa
import pytest
import shapely

from rasteret_dask import api
from rasteret_dask.errors import ArgumentError
from rasteret_dask.facade import page
from rasteret_dask.model import BandInfo
from rasteret_dask.testing.catalog import write_demo_catalog

SVG = "{http://www.w3.org/2000/svg}"


def table(shapes, clouds=None, start=dt.datetime(2023, 8, 1, tzinfo=dt.UTC)) -> pa.Table:
    days = [start + dt.timedelta(days=5 * n) for n in range(len(shapes))]
    columns = {
        "geometry": pa.array(
            [None if s is None else shapely.to_wkb(s) for s in shapes], pa.binary()
        ),
        "datetime": pa.array([d.replace(tzinfo=None) for d in days], pa.timestamp("us")),
    }
    if clouds is not None:
        columns["eo:cloud_cover"] = pa.array(clouds, pa.float64())
    return pa.table(columns)


def elements(text: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(text).iter(f"{SVG}{tag}"))


def corners(path: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = re.findall(r"(-?[\d.]+),(-?[\d.]+)", path.get("d", ""))
    return [(float(x), float(y)) for x, y in pairs]


def test_a_map_is_as_wide_as_the_ground_and_within_its_frame():
    # At 60 degrees north a degree of longitude is half as long as one of latitude.
    svg = page.footprints_svg(table([shapely.box(10, 59.5, 11, 60.5)]))
    (path,) = elements(svg, "path")
    xs, ys = zip(*corners(path), strict=True)
    assert (max(xs) - min(xs)) / (max(ys) - min(ys)) == pytest.approx(0.5, abs=0.01)
    assert 0 < min(xs) < max(xs) < 360
    assert 0 < min(ys) < max(ys) < 240
    labels = [text.text for text in elements(svg, "text")]
    assert "60.0°N" in labels
    assert any(label.endswith("°E") for label in labels)


def test_equal_footprints_are_drawn_once_and_darker():
    one, other = shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)
    paths = elements(page.footprints_svg(table([one, other, one, None])), "path")
    assert len(paths) == 2
    assert float(paths[0].get("fill-opacity")) > float(paths[1].get("fill-opacity"))
    assert paths[0].find(f"{SVG}title").text == "2 items"


def test_over_the_antimeridian_footprints_stay_together():
    shapes = [shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)]
    svg = page.footprints_svg(table(shapes))
    first, second = (corners(path) for path in elements(svg, "path"))
    assert max(x for x, _ in first) == pytest.approx(min(x for x, _ in second), abs=0.2)
    labels = {text.text for text in elements(svg, "text")}
    assert any(label.endswith("E") for label in labels)
    assert any(label.endswith("W") for label in labels)


def test_the_whole_world_is_as_wide_as_it_is():
    (path,) = elements(page.footprints_svg(table([shapely.box(-180, -90, 180, 90)])), "path")
    xs, _ = zip(*corners(path), strict=True)
    assert max(xs) - min(xs) > 200


def test_labels_of_a_narrow_map_do_not_overlap():
    svg = page.footprints_svg(table([shapely.box(15, 40, 16.5, 47)]))
    meridians = [t for t in elements(svg, "text") if t.text.endswith("E")]
    places = [float(t.get("x")) for t in meridians]
    assert all(b - a >= 40 for a, b in pairwise(places))
    assert meridians


def test_a_coast_of_a_hundred_thousand_points_is_a_small_picture():
    fjords = shapely.Point(10, 60).buffer(5, quad_segs=25_000)
    assert len(page.footprints_svg(table([fjords]))) < 10_000


def test_areas_have_their_own_colours_and_titles():
    svg = page.areas_svg(
        [shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)], ["#111111", "#222222"], ["a<b", "c"]
    )
    assert [p.get("fill") for p in elements(svg, "path")] == ["#111111", "#222222"]
    assert [p.find(f"{SVG}title").text for p in elements(svg, "path")] == ["a<b", "c"]
    assert page.areas_svg([], [], []) == ""


def test_where_nobody_knows_clouds_there_is_no_axis_of_them():
    svg = page.timeline_svg(table([shapely.box(0, 0, 1, 1)]))
    assert not [t for t in elements(svg, "text") if "%" in t.text]


def test_holes_and_several_parts():
    holed = shapely.box(0, 0, 4, 4).difference(shapely.box(1, 1, 2, 2))
    both = shapely.MultiPolygon([holed, shapely.box(6, 0, 7, 1)])
    (path,) = elements(page.footprints_svg(table([both])), "path")
    assert path.get("d").count("M") == path.get("d").count("Z") == 3


def test_a_timeline_puts_dates_from_left_to_right_and_clouds_from_low_to_high():
    shape = shapely.box(0, 0, 1, 1)
    svg = page.timeline_svg(table([shape] * 3, [0.0, 100.0, None]))
    circles = elements(svg, "circle")
    x = [float(c.get("cx")) for c in circles]
    y = [float(c.get("cy")) for c in circles]
    assert x == sorted(x)
    assert x[1] == pytest.approx((x[0] + x[2]) / 2, abs=0.1)
    assert y[1] < y[2] < y[0]
    assert circles[2].get("fill") == "none"
    assert circles[0].find(f"{SVG}title").text == "2023-08-01, 0 % clouds"
    assert [t.text for t in elements(svg, "text")][-2:] == ["2023-08-01", "2023-08-11"]


def test_nothing_to_draw():
    empty = table([])
    assert page.footprints_svg(empty) == page.timeline_svg(empty) == ""
    assert "<svg" not in page.page("x", [], empty)
    assert page.timeline_svg(table([shapely.box(0, 0, 1, 1)])).count("<circle") == 1


def test_what_comes_from_outside_is_escaped():
    bad = "<script>alert(1)</script>"
    text = page.page(bad, [(bad, bad)], table([]), [BandInfo(name=bad, asset=bad)])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 5


def test_a_large_collection_is_drawn_in_part():
    shapes = [shapely.box(n / 100, 0, n / 100 + 1, 1) for n in range(page.MAX_ITEMS + 5)]
    text = page.page("big", [], table(shapes), total=10**6)
    assert text.count("<path") == page.MAX_ITEMS
    assert "the first 2,000 of 1,000,000 items" in text


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    root = tmp_path_factory.mktemp("html")
    catalog = write_demo_catalog(root / "scenes", size=64, dates=("2023-07-03",), blocksize=128)
    return api.build(
        "earthsearch/sentinel-2-l2a", name="c", static_catalog=catalog, workspace_dir=root
    )


def test_a_real_collection(collection):
    items = collection.to_table(list(page.COLUMNS))
    bands = [collection.band_info(name) for name in collection.bands]
    text = page.page(collection.name, [("items", "2")], items, bands, total=2)
    assert text.count("<path") == 2
    assert text.count("<circle") == 2
    assert "5 bands" in text
    assert "drawn:" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_plot(collection):
    mpl.use("agg")
    axes = page.plot(collection.to_geopandas())
    assert len(axes.collections[0].get_paths()) == 2
    assert axes.get_xlabel() == "longitude"
    plain = page.plot(collection.to_geopandas(), column=None, color="red")
    assert len(plain.figure.axes) == 1  # no legend


def test_explore(collection):
    frame = collection.to_geopandas()
    if find_spec("folium") is None:
        with pytest.raises(ArgumentError, match="folium"):
            page.explore(frame)
    else:
        assert "folium" in type(page.explore(frame)).__module__


def test_dates_are_utc_wherever_one_is(monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    early = dt.datetime(2023, 8, 1, 2, tzinfo=dt.UTC)
    svg = page.timeline_svg(table([shapely.box(0, 0, 1, 1)], [3.0], early))
    monkeypatch.undo()
    time.tzset()
    assert "2023-08-01, 3 % clouds" in svg
