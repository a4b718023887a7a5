"""What a cube fetches, counted by the server; and what it says when that fails."""

from __future__ import annotations

import pickle
import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import xarray as xr
from affine import Affine
from handmade import Scene, collect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rasteret_dask as rd
from rasteret_dask import errors
from rasteret_dask.model import RetryPolicy, StorageOptions
from rasteret_dask.plan.coalesce import GAP
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import Fault, RangeServer

SIDE, TILE = 1024, 256
QUICK = StorageOptions(retry=RetryPolicy(attempts=2, base=0.001, cap=0.001))


def tiles_of(path: Path) -> list[list[tuple[int, int]]]:
    """Offset and size of each tile of full resolution, as GDAL tells them."""
    with rasterio.open(path) as file:
        n = SIDE // TILE
        tags = [
            [
                [
                    file.get_tag_item(f"BLOCK_{kind}_{x}_{y}", "TIFF", bidx=1)
                    for kind in ("OFFSET", "SIZE")
                ]
                for x in range(n)
            ]
            for y in range(n)
        ]
    return [[(int(a), int(b)) for a, b in row] for row in tags]


def expected_cost(path: Path, wanted: list[tuple[int, int]]) -> tuple[int, int]:
    """Requests and bytes for tiles: one request where nothing lies between."""
    table = tiles_of(path)
    ranges = sorted(table[y][x] for y, x in wanted)
    requests, total, reached, begun = 0, 0, -(10**9), 0
    for offset, size in ranges:
        if offset - reached > GAP or offset + size - begun > 2**20:
            requests, begun = requests + 1, offset
            total += size
        else:
            total += offset + size - reached
        reached = offset + size
    return requests, total


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(5)
    for day in (1, 2):
        for band in ("red", "nir", "m"):
            low, high = (0, 4) if band == "m" else (1, 60_000)
            image = rng.integers(low, high, (SIDE, SIDE)).astype(
                "uint8" if band == "m" else "uint16"
            )
            make_cog(path / f"{band}{day}.tif", image, nodata=0, blocksize=TILE, overviews=0)
    return path


def scenes(base: Any) -> list[Scene]:
    return [
        Scene(
            f"s{d}",
            {b: f"{base}/{b}{d}.tif" for b in ("red", "nir", "m")},
            f"2023-07-0{d}T10:00:00",
        )
        for d in (1, 2)
    ]


@pytest.fixture(scope="module")
def collection(running: RangeServer) -> rd.Collection:
    return collect(*scenes(running.url))


def test_opening_fetches_nothing(collection: rd.Collection, server: RangeServer) -> None:
    collection.get_xarray(masked=True, mask={"band": "m", "keep": [1]})
    collection.explain()
    assert server.counters().requests == 0


WINDOWS = [
    (slice(0, 256), slice(0, 256), [(0, 0)]),
    (slice(0, 257), slice(0, 256), [(0, 0), (1, 0)]),
    (slice(255, 513), slice(300, 301), [(0, 1), (1, 1), (2, 1)]),
    (700, slice(500, 800), [(2, 1), (2, 2), (2, 3)]),
    (slice(1023, None), slice(-1, None), [(3, 3)]),
    (slice(200, 600, 50), 5, [(0, 0), (1, 0), (2, 0)]),
    (slice(0, 0), slice(None), []),
]


def needed(path: Path, tile: tuple[int, int], rows: int) -> int:
    """Bytes of a deflated tile that zlib takes for its upper rows."""
    offset, size = tiles_of(path)[tile[0]][tile[1]]
    data = path.read_bytes()[offset : offset + size]
    stream = zlib.decompressobj()
    stream.decompress(data, rows * TILE * 2)
    return size - len(stream.unconsumed_tail)


@pytest.mark.parametrize(("y", "x", "tiles"), WINDOWS)
def test_a_slice_fetches_its_tiles_and_nothing_else(
    collection: rd.Collection, server: RangeServer, folder: Path, y: Any, x: Any, tiles: Any
) -> None:
    cube = collection.get_xarray(bands=["red"])
    found = cube.red.isel(time=1, y=y, x=x).values
    with rasterio.open(folder / "red2.tif") as file:
        assert np.array_equal(found, file.read(1)[y, x])
    seen = server.counters()
    requests, size = expected_cost(folder / "red2.tif", tiles)
    assert seen.requests == requests
    assert seen.bytes <= size
    assert set(seen.paths) <= {"red2.tif"}
    # Of a tile whose lower rows nobody wants those may be left out, and nothing else.
    last = range(SIDE)[y][-1] if isinstance(y, slice) and range(SIDE)[y] else y
    rows = TILE if not tiles else last % TILE + 1
    if rows == TILE:
        assert seen.bytes == size
    else:
        lowest = max(row for row, _ in tiles)
        cut = [tile for tile in tiles if tile[0] == lowest]
        whole = sum(tiles_of(folder / "red2.tif")[r][c][1] for r, c in cut)
        assert seen.bytes >= size - whole + sum(needed(folder / "red2.tif", t, rows) for t in cut)


def test_a_slice_of_a_masked_and_scaled_cube_is_as_cheap(
    collection: rd.Collection, server: RangeServer, folder: Path
) -> None:
    cube = collection.get_xarray(
        bands=["red"], masked=True, mask={"band": "m", "keep": [1]}, chunks={"y": 512}
    )
    found = cube.red.isel(time=0, y=slice(10, 200), x=slice(300, 400)).values
    seen = server.counters()
    assert set(seen.paths) == {"red1.tif", "m1.tif"}
    costs = [expected_cost(folder / name, [(0, 1)]) for name in ("red1.tif", "m1.tif")]
    assert (seen.requests, seen.bytes) == tuple(map(sum, zip(*costs)))
    image, classes = (
        rasterio.open(folder / f"{b}1.tif").read(1)[10:200, 300:400] for b in ("red", "m")
    )
    assert np.array_equal(found, np.where(classes == 1, image, np.nan), equal_nan=True)


def test_steps_and_arithmetic_after_a_slice(
    collection: rd.Collection, server: RangeServer, folder: Path
) -> None:
    cube = collection.get_xarray(bands=["red", "nir"], masked=True)
    part = cube.isel(time=0, x=slice(0, 256, 5), y=slice(0, 256, 3))
    found = ((part.nir - part.red) / (part.nir + part.red)).values
    red, nir = (
        rasterio.open(folder / f"{b}1.tif").read(1)[:256:3, :256:5].astype("f4")
        for b in ("red", "nir")
    )
    assert np.array_equal(found, (nir - red) / (nir + red))
    costs = [expected_cost(folder / f"{b}1.tif", [(0, 0)]) for b in ("red", "nir")]
    seen = server.counters()
    assert (seen.requests, seen.bytes) == tuple(map(sum, zip(*costs)))


@pytest.mark.parametrize("chunks", ["auto", "tile", {"time": -1, "y": 300, "x": 700}])
def test_explain_is_the_servers_count(
    collection: rd.Collection, server: RangeServer, chunks: Any
) -> None:
    how = {"masked": True, "mask": {"band": "m", "drop": [0]}, "chunks": chunks}
    told = collection.explain(bands=["red", "nir"], **how).total
    collection.get_xarray(bands=["red", "nir"], **how).compute()
    seen = server.counters()
    assert (seen.requests, seen.bytes) == (told.requests, told.bytes)


def test_reopened_a_collection_costs_its_tiles_and_no_header(
    server: RangeServer, folder: Path, tmp_path: Path
) -> None:
    pq.write_table(collect(*scenes(server.url)).to_table(), tmp_path / "c.parquet")
    server.reset()
    again = rd.load(tmp_path / "c.parquet")
    part = again.get_xarray(bands=["nir"]).nir.isel(time=0, y=slice(256, 512), x=slice(0, 512))
    found = part.values
    seen = server.counters()
    assert (seen.requests, seen.bytes) == expected_cost(folder / "nir1.tif", [(1, 0), (1, 1)])
    with rasterio.open(folder / "nir1.tif") as file:
        assert np.array_equal(found, file.read(1)[256:512, :512])


def test_both_bands_are_under_way_together(collection: rd.Collection, server: RangeServer) -> None:
    server.configure(latency=0.2)
    cube = collection.get_xarray(bands=["red", "nir"]).isel(
        time=0, x=slice(0, 256), y=slice(0, 256)
    )
    (cube.red + cube.nir).data.compute(scheduler="synchronous")
    seen = server.counters()
    assert seen.requests == 2
    assert seen.peak_in_flight == 2


# --- any index -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.Dataset, np.ndarray]:
    path = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(3)
    made = []
    for day in (1, 2, 3):
        for col in (0, 30):
            image = rng.integers(0, 99, (50, 40)).astype(np.uint8)
            where = Affine(10, 0, 500_000 + col * 10, 0, -10, 5_200_000 - 70 * col)
            name = f"s{day}{col}"
            file = make_cog(
                path / f"{name}.tif",
                image,
                transform=where,
                nodata=0,
                blocksize=16,
                driver="GTiff",
                overviews=0,
            )
            made.append(Scene(name, {"v": file}, f"2023-07-0{day}T10:00:00"))
    cube = collect(*made).get_xarray(chunks={"time": 2, "y": 60, "x": 33})
    return cube, cube.v.values


AXIS = st.one_of(
    st.slices(40),
    st.integers(-40, 39),
    st.lists(st.integers(-40, 39), min_size=1, max_size=5).map(np.array),
)
TIME = st.one_of(st.slices(3), st.integers(-3, 2), st.permutations([0, 1, 2]))


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(TIME, AXIS, AXIS, st.booleans())
def test_any_index_gives_what_numpy_gives(
    small: tuple[xr.Dataset, np.ndarray], t: Any, y: Any, x: Any, again: bool
) -> None:
    cube, whole = small
    part = cube.v.isel(time=t, y=y, x=x)
    expected = xr.DataArray(whole, dims=("time", "y", "x")).isel(time=t, y=y, x=x)
    if again and part.ndim and 0 not in part.shape:
        part, expected = part[..., ::-2], expected[..., ::-2]
    assert part.shape == expected.shape
    assert np.array_equal(part.values, expected.values)


def test_a_boolean_choice_of_times(small: tuple[xr.Dataset, np.ndarray]) -> None:
    cube, whole = small
    keep = np.array([True, False, True])
    assert np.array_equal(cube.v[keep].values, whole[keep])
    assert np.array_equal(cube.v.isel(x=whole[0, 5] > 40).values, whole[:, :, whole[0, 5] > 40])


# --- failures ------------------------------------------------------------------------------------
def broken(folder: Path, tmp_path: Path) -> Path:
    for name in ("red1.tif", "red2.tif"):
        shutil.copy(folder / name, tmp_path / name)
    offset, size = tiles_of(tmp_path / "red1.tif")[2][1]
    with (tmp_path / "red1.tif").open("r+b") as file:
        file.seek(offset)
        file.write(b"\x7f" * size)
    return tmp_path


@pytest.mark.parametrize("served", [False, True])
def test_a_tile_that_does_not_decode_is_named(folder: Path, tmp_path: Path, served: bool) -> None:
    path = broken(folder, tmp_path)
    with RangeServer(path) as server:
        base = server.url if served else path
        c = collect(
            *(
                Scene(f"s{d}", {"red": f"{base}/red{d}.tif"}, f"2023-07-0{d}T10:00:00")
                for d in (1, 2)
            )
        )
        cube = c.get_xarray()
        with pytest.raises(errors.TileReadError) as caught:
            cube.compute()
        error = pickle.loads(pickle.dumps(caught.value))
        assert (error.item, error.band, error.url) == ("s1", "red", f"{base}/red1.tif")
        assert (error.tile, error.level) == ((2, 1), 0)
        offset, size = tiles_of(path / "red1.tif")[2][1]
        assert error.range == (offset, offset + size)
        # Everything else can be read, again and again.
        with rasterio.open(path / "red2.tif") as file:
            assert np.array_equal(cube.red[1].values, file.read(1))
        assert cube.red[0, :512].values.all()


def test_a_file_that_has_gone_is_named(collection: rd.Collection, server: RangeServer) -> None:
    server.configure(faults=[Fault("status", match="nir2.tif", status=404)])
    with pytest.raises(errors.NotFoundError) as caught:
        collection.get_xarray(bands=["red", "nir"], storage=QUICK).compute()
    assert (caught.value.item, caught.value.band) == ("s2", "nir")
    assert caught.value.url == server.url_of("nir2.tif")


def test_a_mask_that_has_gone_is_named(collection: rd.Collection, server: RangeServer) -> None:
    server.configure(faults=[Fault("status", match="m1.tif", status=403)])
    with pytest.raises(errors.AccessError) as caught:
        collection.get_xarray(
            bands=["red"], masked=True, mask={"band": "m", "keep": 1}, storage=QUICK
        ).compute()
    assert (caught.value.item, caught.value.band) == ("s1", "m")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("ignore_range"), errors.RangeIgnoredError),
        (Fault("status"), errors.TransientError),
        (Fault("corrupt"), errors.TileReadError),
    ],
)
def test_nothing_comes_out_of_a_failing_server(
    collection: rd.Collection, server: RangeServer, fault: Fault, kind: type[Exception]
) -> None:
    server.configure(faults=[fault])
    with pytest.raises(kind) as caught:
        collection.get_xarray(bands=["red"], storage=QUICK).compute()
    assert caught.value.item in ("s1", "s2")  # type: ignore[attr-defined]


def test_503s_in_between_change_nothing(
    collection: rd.Collection, server: RangeServer, folder: Path
) -> None:
    server.configure(faults=[Fault("status", rate=0.4, first=1)])
    found = collection.get_xarray(bands=["red"], chunks="tile", storage=QUICK).red.values
    for k in (0, 1):
        with rasterio.open(folder / f"red{k + 1}.tif") as file:
            assert np.array_equal(found[k], file.read(1))


def test_a_file_that_has_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "red1.tif", tmp_path / "red1.tif")
    c = collect(Scene("s1", {"red": tmp_path / "red1.tif"}))
    shutil.copy(folder / "red2.tif", tmp_path / "red1.tif")
    with pytest.raises(errors.StaleIndexError) as caught:
        c.get_xarray().compute()
    assert (caught.value.item, caught.value.band) == ("s1", "red")


@pytest.mark.parametrize("dilate", [0, 45])
@pytest.mark.parametrize("chunks", ["auto", {"time": -1, "y": 512, "x": 512}])
def test_everything_that_can_be_asked_of_a_value_leaves_a_slice_as_cheap(
    folder: Path, server: RangeServer, dilate: int, chunks: Any
) -> None:
    """Mask, dilation, scale, harmonisation, NaN: ``isel(time=0, x=slice(0, 256))`` fetches a column of tiles of each file."""
    made = [
        replace(s, columns={"collection": "sentinel-2-l2a", "s2:processing_baseline": "05.09"})
        for s in scenes(server.url)
    ]
    cube = collect(*made).get_xarray(
        bands=["red", "nir"],
        scale=True,
        harmonize="sentinel-2",
        masked=True,
        mask={"band": "m", "drop": [3], "dilate": dilate},
        chunks=chunks,
    )
    server.reset()
    part = cube.isel(time=0, x=slice(0, 256))
    found = part.red.values
    seen = server.counters()
    column = [(row, 0) for row in range(4)]
    costs = [expected_cost(folder / "red1.tif", column)]
    # What lies up to 45 m (4 pixels of 10 m) beyond a chunk may be dilated into it.
    halo = 1 if dilate else 0
    for rows in [range(4)] if chunks == "auto" else [range(2 + halo), range(2 - halo, 4)]:
        under = [(row, col) for row in rows for col in range(1 + halo)]
        costs.append(expected_cost(folder / "m1.tif", under))
    assert set(seen.paths) == {"red1.tif", "m1.tif"}
    assert (seen.requests, seen.bytes) == tuple(map(sum, zip(*costs)))
    red, classes = (rasterio.open(folder / f"{b}1.tif").read(1) for b in ("red", "m"))
    hidden = classes == 3
    if dilate:
        grown = np.zeros_like(hidden)
        for dy in range(-4, 5):
            for dx in range(-4, 5):
                if dy * dy + dx * dx <= 4.5**2:
                    framed = np.pad(hidden, 4)
                    grown |= framed[4 + dy : 4 + dy + SIDE, 4 + dx : 4 + dx + SIDE]
        hidden = grown
    # A class of 0 is nodata in the mask's own file.
    hidden |= classes == 0
    expected = np.where(hidden | (red == 0), np.nan, (red.astype(float) - 1000) * 1e-4)
    np.testing.assert_allclose(found, expected[:, :256], atol=3e-7)
