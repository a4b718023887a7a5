"""rasteret 0.4.1 opens what we build and reads the same pixels; we open what it writes. `make parity` makes it an environment.

Where the two differ on purpose, `docs/rasteret.md` says why.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

import rasteret_dask as rd

INTERPRETER = os.environ.get("RASTERET_PYTHON")
HERE = Path(__file__).parent
BOX = (15.35, 46.95, 15.42, 47.0)
# No corner on a pixel's edge or centre, where the two libraries' rounding differs.
SHAPE = shapely.Polygon([(15.3513, 46.9502), (15.4207, 46.9611), (15.4011, 47.0017), (15.3602, 46.9919)])  # fmt: skip
POINTS = np.random.default_rng(3).uniform((15.1, 46.0), (16.3, 47.7), (400, 2))
BANDS = ["B04", "B08"]

AROUND: dict[str, Any] = {"max_distance_pixels": 2, "return_neighbourhood": "always"}

pytestmark = pytest.mark.skipif(
    INTERPRETER is None, reason="RASTERET_PYTHON names no interpreter with rasteret 0.4.1"
)


@pytest.fixture(scope="module")
def ours(austria: Path, tmp_path_factory: pytest.TempPathFactory) -> rd.Collection:
    return rd.build(
        "earthsearch/sentinel-2-l2a",
        name="styria",
        static_catalog=str(austria / "catalog.json"),
        workspace_dir=tmp_path_factory.mktemp("workspace"),
    )


@pytest.fixture(scope="module")
def theirs(
    ours: rd.Collection, austria: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Everything that rasteret is asked, in one process of its own; and the folder that it built a collection in."""
    folder = tmp_path_factory.mktemp("rasteret")
    geometry = {"wkt": SHAPE.wkt, "bands": BANDS}
    points = {"points": POINTS.tolist(), "bands": BANDS, "geometry_crs": 4326}
    questions = {
        "numpy": {"method": "get_numpy", "what": "geometries", "how": {**geometry, "date_range": ["2023-08-10", "2023-08-31"]}},
        "touched": {"method": "get_numpy", "what": "geometries", "how": {**geometry, "all_touched": True}},
        "gdf": {"method": "get_gdf", "what": "geometries", "how": geometry},
        "points": {"method": "sample_points", "what": "points", "how": points},
        "latest": {"method": "sample_points", "what": "points", "how": {**points, "match": "latest"}},
        "nearest": {"method": "sample_points", "what": "points", "how": {**points, **AROUND}},
    }  # fmt: skip
    (folder / "questions.json").write_text(json.dumps(questions))
    target = folder / "collection"
    ours.export(target)
    files = [HERE / "by_rasteret.py", target, folder / "questions.json", folder / "answers"]
    files += [austria / "catalog.json", folder / "built"]
    # -P: the script's folder, which holds a rasteret.py of its own, is not where rasteret is looked for.
    command = [str(INTERPRETER), "-P", *map(str, files)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    answers: dict[str, Any] = pickle.loads((folder / "answers").read_bytes())
    for name, found in answers.items():
        assert not (isinstance(found, dict) and "error" in found), (name, found)
    return {**answers, "folder": next((folder / "built").iterdir())}


def test_arrays(ours: rd.Collection, theirs: dict[str, Any]) -> None:
    mine = ours.get_numpy(SHAPE, BANDS, date_range=("2023-08-10", "2023-08-31"))
    assert mine.dtype == theirs["numpy"].dtype
    assert same_stack(mine, theirs["numpy"])
    assert same_stack(ours.get_numpy(SHAPE, BANDS, all_touched=True), theirs["touched"])


def same_stack(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """The same arrays; rasteret does not promise an order of items."""
    order = [sorted(range(len(s)), key=lambda k: s[k].tobytes()) for s in (mine, theirs)]
    return mine.shape == theirs.shape and np.array_equal(mine[order[0]], theirs[order[1]])


def test_rows(ours: rd.Collection, theirs: dict[str, Any]) -> None:
    mine = ours.get_gdf(SHAPE, BANDS, per="band")
    found = {(r["record_id"], r["band"]): r for r in theirs["gdf"]}
    assert len(found) == len(mine) > 0
    for row in mine.itertuples():
        other = found[row.record_id, row.band]
        assert np.array_equal(row.data, other["data"])
        assert np.allclose(tuple(row.transform)[:6], other["transform"], rtol=0, atol=1e-6)
        assert (row.geometry_id, row.collection) == (other["geometry_id"], other["collection"])


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["record_id"], row["band"], row["point_index"]


@pytest.mark.parametrize("name", ["points", "nearest"])
def test_points(ours: rd.Collection, theirs: dict[str, Any], name: str) -> None:
    how = AROUND if name == "nearest" else {}
    mine = ours.sample_points(POINTS, BANDS, **how).to_pylist()
    found = {key(row): row for row in theirs[name]}
    # rasteret passes over points outside of an item's STAC box; the file's own grid decides here.
    assert set(found) <= {key(row) for row in mine}
    assert len(found) > 0.9 * len(mine)
    for row in mine:
        other = found.get(key(row))
        if other is not None:
            assert {k: v for k, v in row.items() if k != "neighbourhood_values"} == {
                k: v for k, v in other.items() if k != "neighbourhood_values"
            }
            if name == "nearest":
                assert np.array_equal(row["neighbourhood_values"], other["neighbourhood_values"], equal_nan=True)  # fmt: skip


def test_latest(ours: rd.Collection, theirs: dict[str, Any]) -> None:
    mine = {
        (r["point_index"], r["band"]): r
        for r in ours.sample_points(POINTS, BANDS, match="latest").to_pylist()
    }
    both = 0
    for row in theirs["latest"]:
        other = mine[row["point_index"], row["band"]]
        # rasteret takes the latest by box; where the file has no such pixel, ours is later or the same.
        assert other["datetime"] >= row["datetime"]
        if other["record_id"] == row["record_id"]:
            assert other["value"] == row["value"]
            both += 1
    assert both > 0.9 * len(theirs["latest"])


def test_what_rasteret_wrote_opens(ours: rd.Collection, theirs: dict[str, Any]) -> None:
    found = rd.load(theirs["folder"])
    assert (len(found), found.bands) == (10, ["B04", "SCL"])
    assert found.resolve_bands(["red"]) == [("red", "B04")]
    assert np.array_equal(found.get_numpy(SHAPE, ["B04"]), ours.get_numpy(SHAPE, ["B04"]))
    box = {"bbox": BOX, "bands": ["B04", "SCL"], "date_range": "2023-08-15"}
    assert found.get_xarray(**box).equals(ours.get_xarray(**box))
    assert found.sample_points(POINTS, ["B04"])["value"].equals(
        ours.sample_points(POINTS, ["B04"])["value"]
    )
    assert len(found.subset(cloud_cover_lt=30)) == len(ours.subset(cloud_cover_lt=30))
