from __future__ import annotations

from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from affine import Affine

from rasteret_dask.errors import ArgumentError, SchemaVersionError
from rasteret_dask.write import regions
from rasteret_dask.write.zarr import _metadata, write_zarr


def test_a_cube_comes_back(cube: xr.Dataset, affine: Affine, tmp_path: Path) -> None:
    url = write_zarr(cube, tmp_path / "new" / "cube.zarr").url
    raw = xr.open_zarr(url, mask_and_scale=False)
    xr.testing.assert_equal(raw.load(), cube.compute())
    assert raw.rio.crs.to_epsg() == 32633
    assert raw.B04.dtype == np.uint16
    assert raw.B04.attrs["_FillValue"] == 0
    masked = xr.open_zarr(url, decode_coords="all")
    assert np.isnan(masked.B04[0, :50].values).all()
    assert masked.rio.crs.to_epsg() == 32633
    assert masked.rio.transform() == affine
    assert masked.B04.encoding["grid_mapping"] == "spatial_ref"
    group = zarr.open_group(url, mode="r")
    assert group.metadata.zarr_format == 3
    assert group.metadata.consolidated_metadata is not None
    assert group["B04"].chunks == (1, 256, 256)


def test_after_arithmetic_and_with_uneven_chunks(cube: xr.Dataset, tmp_path: Path) -> None:
    ndvi = ((cube.B08 * 1.0 - cube.B04) / (cube.B08 * 1.0 + cube.B04)).median("time")
    chunked = ndvi.chunk(y=256, x=256)
    shifted = chunked.isel(y=slice(100, None), x=slice(30, None)).rename("ndvi")
    assert shifted.chunks == ((156, 256, 188), (226, 256, 256, 132))
    write_zarr(shifted, tmp_path / "ndvi.zarr")
    read = xr.open_zarr(tmp_path / "ndvi.zarr", decode_coords="all")
    assert np.array_equal(read.ndvi, shifted, equal_nan=True)
    assert read.rio.crs.to_epsg() == 32633


def test_any_url(cube: xr.Dataset) -> None:
    url = "memory://write-zarr/cube.zarr"
    write_zarr(cube[["B04"]], url)
    read = xr.open_zarr(url, mask_and_scale=False)
    assert np.array_equal(read.B04, cube.B04)


def test_an_unfinished_store_does_not_open(cube: xr.Dataset, tmp_path: Path) -> None:
    def broken(block: np.ndarray, block_info: object = None) -> np.ndarray:
        raise OSError("no such tile")

    bad = cube[["B04"]].copy()
    bad["B04"] = bad.B04.copy(data=bad.B04.data.map_blocks(broken, dtype="uint16"))
    with pytest.raises(OSError, match="no such tile"):
        write_zarr(bad, tmp_path / "cube.zarr")
    with pytest.raises(FileNotFoundError):
        xr.open_zarr(tmp_path / "cube.zarr")
    # Doing it again, rightly, works.
    write_zarr(cube, tmp_path / "cube.zarr")
    assert np.array_equal(xr.open_zarr(tmp_path / "cube.zarr", mask_and_scale=False).B04, cube.B04)


def test_what_may_be_replaced(cube: xr.Dataset, tmp_path: Path) -> None:
    small = cube.isel(time=[0])[["B04"]]
    write_zarr(cube, tmp_path / "cube.zarr")
    with pytest.raises(ArgumentError, match="there already"):
        write_zarr(small, tmp_path / "cube.zarr", overwrite=False)
    write_zarr(small, tmp_path / "cube.zarr")
    assert list(xr.open_zarr(tmp_path / "cube.zarr").data_vars) == ["B04"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("…")
    with pytest.raises(ArgumentError, match="no Zarr store"):
        write_zarr(small, tmp_path / "thesis")
    with pytest.raises(ArgumentError, match="is a file"):
        write_zarr(small, tmp_path / "thesis" / "chapter1.txt")
    assert (tmp_path / "thesis" / "chapter1.txt").exists()


def test_the_dataset_itself_is_left_alone(cube: xr.Dataset, tmp_path: Path) -> None:
    before = {name: (dict(v.attrs), dict(v.encoding)) for name, v in cube.variables.items()}
    write_zarr(cube, tmp_path / "cube.zarr")
    assert before == {name: (dict(v.attrs), dict(v.encoding)) for name, v in cube.variables.items()}


def test_large_chunks_become_shards(cube: xr.Dataset, tmp_path: Path) -> None:
    padded = cube.pad(y=(0, 324), x=(0, 124), constant_values=0).chunk(time=1, y=1024, x=1024)
    write_zarr(padded, tmp_path / "cube.zarr")
    stored = zarr.open_group(str(tmp_path / "cube.zarr"), mode="r")["B08"]
    assert (stored.shards, stored.chunks) == ((1, 1024, 1024), (1, 512, 512))
    assert len(list((tmp_path / "cube.zarr" / "B08").rglob("c/*/*/*"))) == 3  # one file a date
    read = xr.open_zarr(tmp_path / "cube.zarr", mask_and_scale=False)
    assert np.array_equal(read.B08, padded.B08)


def test_where_it_lies_by_geozarr(cube: xr.Dataset, affine: Affine, tmp_path: Path) -> None:
    write_zarr(cube, tmp_path / "cube.zarr")
    said = zarr.open_group(str(tmp_path / "cube.zarr"), mode="r").attrs
    assert said["proj:code"] == "EPSG:32633"
    assert Affine(*said["spatial:transform"]) == affine
    assert Affine(*said["spatial:transform"]) * (0.5, 0.5) == (cube.x[0], cube.y[0])
    assert said["spatial:shape"] == [700, 900]
    assert said["spatial:bbox"] == [500_000, 5_193_000, 509_000, 5_200_000]
    assert [c["name"] for c in said["zarr_conventions"]] == ["proj:", "spatial:"]
    # A store of a store says it once, and of its own grid.
    part = xr.open_zarr(tmp_path / "cube.zarr", decode_coords="all").isel(x=slice(100, None))
    write_zarr(part, tmp_path / "part.zarr")
    again = zarr.open_group(str(tmp_path / "part.zarr"), mode="r").attrs
    assert again["spatial:transform"][2] == 501_000
    assert len(again["zarr_conventions"]) == 2


def test_metadata_costs_nothing_however_many_regions(tmp_path: Path) -> None:
    """xarray would take the whole graph apart for it."""
    blocks = da.zeros((1, 100_000, 100_000), chunks=(1, 10, 10), dtype="uint8")
    dataset = xr.Dataset({"a": (("time", "y", "x"), blocks)})
    files = _metadata(dataset)
    assert set(files) == {"zarr.json", "a/zarr.json"}


def counted(
    dataset: xr.Dataset, calls: list[tuple[int, ...]], fail_after: int = 10**9
) -> xr.Dataset:
    """The same values, through a function that notes its blocks and gives up after some."""

    def note(block: np.ndarray, block_id: tuple[int, ...]) -> np.ndarray:
        if len(calls) >= fail_after:
            raise OSError("the power is off")
        calls.append(block_id)
        return block

    changed = dataset.copy()
    for name in dataset.data_vars:
        like = {"dtype": dataset[name].dtype, "meta": dataset[name].data._meta}
        data = dataset[name].data.map_blocks(note, name=f"note-{name}", **like)
        changed[name] = dataset[name].copy(data=data)
    return changed


def test_what_was_broken_off_goes_on(cube: xr.Dataset, tmp_path: Path) -> None:
    url = tmp_path / "cube.zarr"
    calls: list[tuple[int, ...]] = []
    with dask.config.set(scheduler="sync"):
        with pytest.raises(OSError, match="power is off"):
            write_zarr(counted(cube, calls, fail_after=21), url)
        markers = list((tmp_path / "cube.zarr.regions").glob("*.done"))
        assert 0 < len(markers) <= 10  # two bands a region; the eleventh was broken off
        with pytest.raises(FileNotFoundError):
            xr.open_zarr(url)
        again: list[tuple[int, ...]] = []
        written = write_zarr(counted(cube, again), url, resume=True)
    assert (written.regions, written.computed) == (36, 36 - len(markers))
    assert len(again) == 2 * written.computed
    assert not (tmp_path / "cube.zarr.regions").exists()
    raw = xr.open_zarr(url, mask_and_scale=False)
    xr.testing.assert_equal(raw.load(), cube.compute())


def test_another_cube_does_not_go_on(cube: xr.Dataset, tmp_path: Path) -> None:
    calls: list[tuple[int, ...]] = []
    with dask.config.set(scheduler="sync"), pytest.raises(OSError, match="power is off"):
        write_zarr(counted(cube, calls, fail_after=21), tmp_path / "cube.zarr")
    other = cube.astype("float32")
    written = write_zarr(other, tmp_path / "cube.zarr", resume=True)
    assert written.computed == written.regions == 36
    assert np.array_equal(xr.open_zarr(tmp_path / "cube.zarr", mask_and_scale=False).B04, other.B04)


def test_markers_of_a_newer_version_are_refused(cube: xr.Dataset, tmp_path: Path) -> None:
    (tmp_path / "cube.zarr.regions").mkdir()
    (tmp_path / "cube.zarr.regions" / "layout.json").write_text('{"version": 99}')
    with pytest.raises(SchemaVersionError, match="99"):
        write_zarr(cube, tmp_path / "cube.zarr", resume=True)


def test_a_region_of_nothing_has_its_marker(cube: xr.Dataset, tmp_path: Path) -> None:
    """Zarr stores no chunk that is all nothing, and it is not computed again for that."""
    empty = cube[["B04"]].copy(data={"B04": da.zeros_like(cube.B04.data)})
    calls: list[tuple[int, ...]] = []
    with dask.config.set(scheduler="sync"), pytest.raises(OSError, match="power is off"):
        write_zarr(counted(empty, calls, fail_after=5), tmp_path / "cube.zarr")
    assert not (tmp_path / "cube.zarr" / "B04" / "c").exists()
    written = write_zarr(counted(empty, []), tmp_path / "cube.zarr", resume=True)
    assert written.computed == 36 - 5


def test_plain_arrays_and_single_values(tmp_path: Path) -> None:
    dataset = xr.Dataset({"a": (("y", "x"), np.eye(3)), "n": ((), 7)})
    write_zarr(dataset, tmp_path / "cube.zarr")
    xr.testing.assert_equal(xr.open_zarr(tmp_path / "cube.zarr").load(), dataset)


def test_a_write_that_was_killed_before_it_looked_like_a_store_is_replaced(tmp_path: Path) -> None:
    dataset = xr.Dataset({"v": (("y", "x"), da.ones((4, 4), chunks=2))})
    store = tmp_path / "v.zarr"
    (store / "v").mkdir(parents=True)
    with pytest.raises(ArgumentError, match="no Zarr store"):
        write_zarr(dataset, store, overwrite=True)
    # The markers are begun before anything is laid down.
    (tmp_path / "v.zarr.regions").mkdir()
    (tmp_path / "v.zarr.regions" / regions._LAYOUT).write_text("{}")
    with dask.config.set(scheduler="sync"):
        write_zarr(dataset, store, overwrite=True)
    assert (xr.open_zarr(store).v.values == 1).all()


def test_what_a_killed_writer_had_half_written_is_gone_in_the_end(tmp_path: Path) -> None:
    dataset = xr.Dataset({"v": (("y", "x"), da.ones((4, 4), chunks=2))})
    store = tmp_path / "v.zarr"
    with dask.config.set(scheduler="sync"):
        write_zarr(dataset, store)
        before = {path.name for path in store.rglob("*")}
        half = store / "v" / "c" / "0" / f"1.{'a1' * 16}.partial"
        half.touch()
        own = store / "v" / "notes.partial"
        own.touch()
        regions.sweep(str(store))
    assert {path.name for path in store.rglob("*")} == {*before, "notes.partial"}
