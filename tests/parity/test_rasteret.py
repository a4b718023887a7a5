"""rasteret 0.4.1 opens what we build and reads the same pixels; we open what it writes. `make parity` makes it an environment.

Where the two differ on purpose, `docs/rasteret.md` says why.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine

import rasteret_dask as rd
from rasteret_dask import catalog as catalogs
from rasteret_dask.testing.cog import make_cog

INTERPRETER = os.environ.get("RASTERET_PYTHON")
HERE = Path(__file__).parent
BOX = (15.35, 46.95, 15.42, 47.0)
# No corner on a pixel's edge or centre, where the two libraries' rounding differs.
SHAPE = shapely.Polygon([(15.3513, 46.9502), (15.4207, 46.9611), (15.4011, 47.0017), (15.3602, 46.9919)])  # fmt: skip
POINTS = np.random.default_rng(3).uniform((15.1, 46.0), (16.3, 47.7), (400, 2))
BANDS = ["B04", "B08"]

LABELS = np.random.default_rng(4).uniform((500_100, 5_198_500), (502_400, 5_199_900), (60, 2))
"""In UTM, over the files of `multiband`."""

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


def multiband(folder: Path) -> Path:
    """A table of two files of 64 bands in planes, int8."""
    start, rows = datetime(2023, 1, 1, tzinfo=UTC), []
    for k in range(2):
        corner = Affine(10, 0, 500_000 + 1000 * k, 0, -10, 5_200_000)
        array = np.random.default_rng(k).integers(-127, 128, (64, 160, 150)).astype("int8")
        path = make_cog(
            folder / f"{k}.tif", array, transform=corner, crs=32633, blocksize=64, driver="GTiff", interleave="band",
            overviews=0, nodata=-128,
        )  # fmt: skip
        box = shapely.box(15.0 + 0.0131 * k, 46.937, 15.0197 + 0.0131 * k, 46.9516)
        rows.append(
            {
                "fid": f"e{k}",
                "when": start,
                "geometry": shapely.to_wkb(box),
                "path": str(path),
                "split": ("train", "val")[k],
            }
        )
    table = pa.Table.from_pylist(rows)
    table = table.set_column(1, "when", table["when"].cast(pa.timestamp("us", "UTC")))
    pq.write_table(table, folder / "files.parquet")
    return folder / "files.parquet"


def owned(table: Path, folder: Path) -> rd.Collection:
    """What we build of that table; its split is a column of it."""
    return rd.build_from_table(
        table,
        name="owned",
        workspace_dir=folder / "workspace",
        column_map={"fid": "id", "when": "datetime"},
        href_column="path",
        band_index_map={f"A{i:02d}": i for i in range(64)},
    )


@pytest.fixture(scope="module")
def theirs(
    ours: rd.Collection, austria: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Everything that rasteret is asked, in one process of its own; and the folder that it built a collection in."""
    folder = tmp_path_factory.mktemp("rasteret")
    geometry = {"wkt": SHAPE.wkt, "bands": BANDS}
    labels = {"points": LABELS.tolist(), "bands": ["A00", "A07", "A63"], "geometry_crs": 32633}
    points = {"points": POINTS.tolist(), "bands": BANDS, "geometry_crs": 4326}
    questions = {
        "numpy": {"method": "get_numpy", "what": "geometries", "how": {**geometry, "date_range": ["2023-08-10", "2023-08-31"]}},
        "touched": {"method": "get_numpy", "what": "geometries", "how": {**geometry, "all_touched": True}},
        "gdf": {"method": "get_gdf", "what": "geometries", "how": geometry},
        "points": {"method": "sample_points", "what": "points", "how": points},
        "latest": {"method": "sample_points", "what": "points", "how": {**points, "match": "latest"}},
        "embeddings": {"method": "sample_points", "what": "points", "how": labels},
        "train": {"method": "sample_points", "what": "points", "how": labels},
        "nearest": {"method": "sample_points", "what": "points", "how": {**points, **AROUND}},
    }  # fmt: skip
    (folder / "questions.json").write_text(json.dumps(questions))
    target = folder / "collection"
    ours.export(target)
    files = [HERE / "by_rasteret.py", target, folder / "questions.json", folder / "answers"]
    files += [austria / "catalog.json", folder / "built", multiband(folder / "embeddings")]
    owned(files[-1], folder).export(folder / "owned")
    files.append(folder / "owned")
    # -P: the script's folder, which holds a rasteret.py of its own, is not where rasteret is looked for.
    command = [str(INTERPRETER), "-P", *map(str, files)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    answers: dict[str, Any] = pickle.loads((folder / "answers").read_bytes())
    for name, found in answers.items():
        assert not (isinstance(found, dict) and "error" in found), (name, found)
    published = next(Path(f"{files[-2]}-built").iterdir())
    built = {"folder": next((folder / "built").iterdir()), "published": published}
    return {**answers, **built, "owned": folder / "owned"}


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
    # Both pass over points outside of an item's STAC box.
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
        # Where the file of the latest by box has no such pixel, rasteret has no row.
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


def test_a_tables_own_columns_are_rasterets_too(theirs: dict[str, Any]) -> None:
    bands = ["A00", "A07", "A63"]
    mine = rd.load(theirs["owned"]).select_split("train")
    found = mine.sample_points(LABELS, bands, geometry_crs=32633).to_pylist()
    values = {key(row): row["value"] for row in theirs["train"]}
    assert {row["record_id"] for row in found} == {k[0] for k in values} == {"e0"}
    assert len(found) >= len(values) > 0.8 * len(found) > 0
    assert all(row["value"] == values.get(key(row), row["value"]) for row in found)


def test_embeddings_that_rasteret_wrote_are_read_and_decoded(theirs: dict[str, Any]) -> None:
    """What `aef/v1-annual` is published as: rasteret's own files, opened by the dataset's id."""
    told = replace(
        catalogs.built_in()["aef/v1-annual"], parquet=str(theirs["published"]), storage={}
    )
    catalog = catalogs.built_in().register(told)
    aef = rd.load("aef/v1-annual", catalog=catalog, storage=rd.StorageOptions())
    assert (len(aef), len(aef.bands)) == (2, 64)
    mine = aef.sample_points(LABELS, ["A00", "A07", "A63"], geometry_crs=32633).to_pylist()
    found = {key(row): row["value"] for row in theirs["embeddings"]}
    assert set(found) <= {key(row) for row in mine}
    assert len(found) > 0.8 * len(mine) > 0
    assert all(row["value"] == found.get(key(row), row["value"]) for row in mine)
    decoded = aef.sample_points(LABELS, ["A07"], geometry_crs=32633, decode=True)[
        "value"
    ].to_numpy()
    stored = np.array([row["value"] for row in mine if row["band"] == "A07"])
    np.testing.assert_allclose(decoded, np.sign(stored) * (stored / 127.5) ** 2, rtol=1e-6)
    assert aef.subset(date_range="2023").get_xarray(bands=["A00"]).A00.dtype == np.int8
