"""Peers that read without GDAL, each happiest in an environment of its own (``--python TOOL=INTERPRETER``).

Everything is imported when asked for, so that these environments need no more than the peer, ``imagecodecs`` and ``psutil``.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import CORNERS, SIDE, Scene
from benchmarks.workloads import Job, Unable, Workload, reduce_median, split
from benchmarks.workloads import Window as Pixels


def _by_kind(work: Workload, stacks: Callable[[], list[Any]], **others: Callable[[], Any]) -> Job:
    """`stacks` gives for each window (scenes, bands, rows, columns)."""
    if work.kind == "windows":
        return Job(stacks, np.stack)
    if work.kind == "warp":
        return Job(stacks, lambda got: got[0][:, 0])
    if work.kind == "median":
        return Job(lambda: reduce_median(split(stacks()[0])))
    if work.kind not in others:
        raise Unable(f"not written for {work.kind}")
    return Job(others[work.kind])


# --- async-geotiff ---------------------------------------------------------------------------------
def async_geotiff(work: Workload, root: str) -> Job:
    """Every file opened once, all reads awaited together; decoding goes on in its own threads."""
    from async_geotiff import GeoTIFF, Window
    from obstore.store import HTTPStore

    if work.kind == "warp":
        raise Unable("async-geotiff does not reproject")
    store = HTTPStore(root, client_options={"allow_http": True})
    # As many as this package has under way of small requests: headers come sooner, and windows no later.
    gate = asyncio.Semaphore(128)

    async def opened(scene: Scene, band: str) -> Any:
        async with gate:
            return await GeoTIFF.open(scene.paths[band], store=store)

    async def every() -> list[Any]:
        pairs = [(scene, band) for scene in work.scenes for band in work.bands]
        return await asyncio.gather(*[opened(*pair) for pair in pairs])

    async def pixels(windows: tuple[Pixels, ...]) -> np.ndarray:
        shape = (len(windows), len(work.scenes), len(work.bands), *windows[0][2:])
        stack = np.empty(shape, "uint16")
        flat = stack.reshape(len(windows), -1, *windows[0][2:])
        # Parts of a large window: the same tiles, but never two copies of everything.
        step = 1024 if windows[0][2] > 4096 else windows[0][2]

        async def read(image: Any, n: int, w: int, first: int) -> None:
            row, column, rows, columns = windows[w]
            part = Window(column, row + first, columns, min(step, rows - first))
            async with gate:
                got = await image.read(window=part)
            flat[w, n, first : first + step] = got.data[0]

        async def file(n: int, scene: Scene, band: str) -> None:
            image = await opened(scene, band)
            parts = [(w, f) for w, v in enumerate(windows) for f in range(0, v[2], step)]
            await asyncio.gather(*[read(image, n, w, f) for w, f in parts])

        pairs = [(scene, band) for scene in work.scenes for band in work.bands]
        await asyncio.gather(*[file(n, *pair) for n, pair in enumerate(pairs)])
        return stack

    def windows() -> Any:
        return list(asyncio.run(pixels(work.windows)))

    def points() -> Any:
        return work.picked(asyncio.run(pixels((work.around(),)))[0, :, 0])

    def headers() -> Any:
        return np.array(len(asyncio.run(every())))

    return _by_kind(work, windows, points=points, headers=headers)


# --- rasteret --------------------------------------------------------------------------------------
def _rasteret_table(work: Workload, root: str) -> Any:
    import pyarrow as pa
    import shapely

    items = [scene.stac(root) for scene in work.scenes]
    shapes = [shapely.geometry.shape(item["geometry"]) for item in items]
    return pa.table(
        {
            "id": [item["id"] for item in items],
            "datetime": pa.array([scene.when for scene in work.scenes], pa.timestamp("us")),
            "geometry": pa.array([shapely.to_wkb(shape) for shape in shapes], pa.binary()),
            "assets": [
                {band: {"href": item["assets"][band]["href"]} for band in work.bands}
                for item in items
            ],
            "proj:epsg": pa.array([scene.epsg for scene in work.scenes], pa.int32()),
        }
    )


def rasteret(work: Workload, root: str) -> Job:
    """rasteret 0.4.1 with its index built beforehand; building is W6."""
    import pyarrow as pa
    import rasteret as ras
    from pyproj import Transformer
    from rasteret.fetch import cog
    from shapely import box

    # It refuses plain HTTP, which is all that the server speaks without TLS.
    cog._OBSTORE_CLIENT_OPTIONS["allow_http"] = True

    # What a search has found; to make it up is no part of the work.
    table = _rasteret_table(work, root)

    def built() -> Any:
        return ras.build_from_table(
            table,
            name=f"{work.name}-{os.getpid()}",
            workspace_dir=scratch.name,
            enrich_cog=True,
            band_codes=list(work.bands),
            force=True,
        )

    scratch = tempfile.TemporaryDirectory()
    if work.kind == "headers":

        def headers() -> Any:
            made = built()
            return np.array(len(work.bands) * made.dataset.count_rows())

        return Job(headers)
    if work.kind in ("lazy", "chips"):
        raise Unable(f"not written for {work.kind}")
    collection = built()
    bands = list(work.bands)
    to_lonlat = Transformer.from_crs("EPSG:32633", "OGC:CRS84", always_xy=True)

    def windows() -> Any:
        areas = [box(*work.bounds(window)) for window in work.windows]
        if work.kind == "warp":
            cube = collection.get_xarray(
                areas[0], bands, geometry_crs=32633, target_crs=32633, max_concurrent=100
            )
            return [cube[bands[0]].values[:, None]]
        # All windows in one call: it reads them together.
        got = collection.get_numpy(areas, bands, geometry_crs=32633, max_concurrent=100)
        every = got.reshape(len(work.scenes), len(areas), len(bands), *work.windows[0][2:])
        return list(every.swapaxes(0, 1))

    def points() -> Any:
        left, top = CORNERS[32633]
        x, y = left + (work.points[:, 1] + 0.5) * 10, top - (work.points[:, 0] + 0.5) * 10
        west, south = to_lonlat.transform(x.min() - 100, y.min() - 100)
        east, north = to_lonlat.transform(x.max() + 100, y.max() + 100)
        # With a box it does not filter by one expression of all points, which overflows the stack.
        got = collection.sample_points(
            pa.table({"x": x, "y": y}), bands, x_column="x", y_column="y", geometry_crs=32633,
            bbox=(west, south, east, north), max_concurrent=100,
        )  # fmt: skip
        got = got.sort_by([("datetime", "ascending"), ("point_index", "ascending")])
        return got["value"].to_numpy().reshape(len(work.scenes), -1).astype("uint16")

    return _by_kind(work, windows, points=points)


# --- lazycogs --------------------------------------------------------------------------------------
def _duckdb(scratch: str) -> Any:
    """A client that finds the extensions which PyPI carries, laid out as DuckDB wants them."""
    import importlib.util

    from rustac import DuckdbClient

    for name in ("spatial", "icu", "parquet"):
        found = importlib.util.find_spec(f"duckdb_extension_{name}")
        if found is None or not found.submodule_search_locations:
            raise Unable(f"lazycogs needs duckdb-extension-{name}")
        for file in Path(found.submodule_search_locations[0]).rglob("*.duckdb_extension"):
            target = Path(scratch, file.parent.name, "linux_amd64", file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    return DuckdbClient(extension_directory=scratch, install_extensions=False)


def lazycogs(work: Workload, root: str) -> Job:
    """Its own lazy arrays: small windows by themselves, large ones in chunks on 16 of Dask's threads, as its manual says; the list of
    items is written beforehand."""
    import dask
    import lazycogs as lazy
    import rustac
    from obstore.store import HTTPStore

    if work.kind == "headers":
        raise Unable("it keeps no index")
    scratch = tempfile.TemporaryDirectory()
    client = _duckdb(scratch.name)
    store = HTTPStore(root, client_options={"allow_http": True})
    listed = f"{scratch.name}/items.parquet"
    items = [scene.stac(root) for scene in work.scenes]

    async def write() -> None:
        await rustac.write(listed, items)

    asyncio.run(write())

    def cube(window: Pixels) -> Any:
        assert scratch.name in listed  # and so the folder lives as long as this function
        large = max(window[2:]) > 1024
        # One chunk of a scene for the points: those of 2048 would cut tiles in two.
        side = 4096 if work.kind == "points" else 2048
        array = lazy.open(
            listed,
            bbox=work.bounds(window),
            crs="EPSG:32633",
            resolution=10.0,
            bands=list(work.bands),
            time_period=None if work.kind == "warp" else "P1D",
            duckdb_client=client,
            store=store,
            path_from_href=lambda href: href.removeprefix(f"{root}/"),
            chunks={"time": 1, "band": 1, "x": side, "y": side} if large else None,
        )
        return array.transpose("time", "band", "y", "x")

    def loaded(array: Any) -> np.ndarray:
        with dask.config.set(scheduler="threads", num_workers=16):
            return np.asarray(array.values)

    def windows() -> Any:
        if len(work.windows) == 1:
            return [loaded(cube(work.windows[0]))]
        with ThreadPoolExecutor(len(work.windows)) as pool:
            return list(pool.map(lambda window: loaded(cube(window)), work.windows))

    def points() -> Any:
        return work.picked(loaded(cube(work.around()))[:, 0])

    def one_of_many() -> Any:
        row, column, rows, columns = work.windows[0]
        whole = cube((0, 0, SIDE, SIDE))
        return loaded(whole[work.chosen, :, row : row + rows, column : column + columns])

    return _by_kind(work, windows, points=points, lazy=one_of_many)


# --- VirtualiZarr + virtual-tiff -------------------------------------------------------------------
def virtual_tiff(work: Workload, root: str) -> Job:
    """Manifests made beforehand (making them is W6), then Zarr arrays read by 16 threads."""
    import zarr
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import HTTPStore
    from virtual_tiff import VirtualTIFF

    if work.kind in ("warp", "lazy", "chips"):
        raise Unable(
            "virtual-tiff does not reproject"
            if work.kind == "warp"
            else f"not written for {work.kind}"
        )
    registry = ObjectStoreRegistry({root: HTTPStore(root, client_options={"allow_http": True})})
    parser = VirtualTIFF(ifd=0)
    pairs = [(s, b) for s in range(len(work.scenes)) for b in range(len(work.bands))]

    def manifest(pair: tuple[int, int]) -> Any:
        path = work.scenes[pair[0]].paths[work.bands[pair[1]]]
        return zarr.open_group(parser(f"{root}/{path}", registry), mode="r", zarr_format=3)["0"]

    def spread(function: Callable[[Any], Any], tasks: list[Any]) -> list[Any]:
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(function, tasks))

    if work.kind == "headers":
        return Job(lambda: np.array(len(spread(manifest, pairs))))
    arrays = dict(zip(pairs, spread(manifest, pairs), strict=True))

    def pixels(windows: Sequence[Pixels]) -> list[Any]:
        stacks = [
            np.empty((len(work.scenes), len(work.bands), rows, columns), "uint16")
            for _, _, rows, columns in windows
        ]
        # Rows of tiles of a whole scene: never two copies of everything.
        step = 1024 if windows[0][2] > 4096 else windows[0][2]

        def read(task: tuple[int, tuple[int, int], int]) -> None:
            w, pair, first = task
            row, column, rows, columns = windows[w]
            last = min(first + step, rows)
            cut = arrays[pair][row + first : row + last, column : column + columns]
            stacks[w][pair][first:last] = cut

        spread(
            read,
            [(w, p, f) for w, v in enumerate(windows) for p in pairs for f in range(0, v[2], step)],
        )
        return stacks

    def points() -> Any:
        return work.picked(pixels([work.around()])[0][:, 0])

    return _by_kind(work, lambda: pixels(work.windows), points=points)


TOOLS: dict[str, Callable[[Workload, str], Job]] = {
    "async-geotiff": async_geotiff,
    "lazycogs": lazycogs,
    "virtual-tiff": virtual_tiff,
    "rasteret": rasteret,
}
