"""Headers over storage: requests counted at a server, errors in place of headers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from rasteret_dask.errors import (
    HeaderError,
    NotFoundError,
    StaleIndexError,
    UnsupportedTiffError,
)
from rasteret_dask.ingest import headers
from rasteret_dask.ingest.headers import fetch_header, fetch_headers
from rasteret_dask.model import RatePolicy, StorageOptions
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.source import RangeResponse, read_range
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer
from rasteret_dask.tiff.model import TiffHeader


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("headers")
    array = np.random.default_rng(0).integers(0, 999, (700, 700)).astype("uint16")
    make_cog(found / "cog.tif", array, blocksize=128)
    make_cog(found / "tail.tif", array, blocksize=16, driver="GTiff")
    with rasterio.open(found / "tail.tif", "r+") as sink:
        sink.build_overviews([3, 5])  # appended: their directories are at the end of the file
    (found / "page.tif").write_text("<html>not here</html>" * 20)
    (found / "jp2.tif").write_bytes(b"\xff\x4f\xff\x51" + bytes(100))
    (found / "short.tif").write_bytes((found / "cog.tif").read_bytes()[:500])
    return found


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder) as running:
        yield running


def test_a_cog_takes_one_request(server: RangeServer, folder: Path) -> None:
    server.reset()
    header = run(fetch_header(f"{server.url}/cog.tif"))
    assert server.counters().requests == 1
    assert header.size == (folder / "cog.tif").stat().st_size
    assert header.etag or header.last_modified
    assert len(header.levels) == 4


@pytest.mark.parametrize("first", [16, 1000, 32768])
def test_headers_elsewhere_take_a_few(server: RangeServer, folder: Path, first: int) -> None:
    local = run(fetch_header(str(folder / "tail.tif")))
    server.reset()
    header = run(fetch_header(f"{server.url}/tail.tif", first_read=first))
    assert server.counters().requests <= 20
    assert len(header.levels) == 9
    for ours, theirs in zip(header.levels, local.levels, strict=True):
        np.testing.assert_array_equal(ours.offsets, theirs.offsets)
        np.testing.assert_array_equal(ours.counts, theirs.counts)


def test_one_bad_file_costs_only_itself(server: RangeServer) -> None:
    names = ["cog.tif", "none.tif", "page.tif", "jp2.tif", "short.tif", "tail.tif"]
    urls = [f"{server.url}/{name}" for name in names]
    server.reset()
    few = StorageOptions(rate=RatePolicy(in_flight=2))
    found = run(fetch_headers(urls, options=few))
    assert server.counters().peak_in_flight <= 2
    assert isinstance(found[0], TiffHeader)
    assert isinstance(found[1], NotFoundError)
    assert isinstance(found[2], HeaderError)
    assert isinstance(found[3], UnsupportedTiffError)
    assert isinstance(found[4], HeaderError)
    assert isinstance(found[5], TiffHeader)
    for url, error in zip(urls[1:5], found[1:5], strict=True):
        assert not isinstance(error, TiffHeader)
        assert error.url == url


# As far away as a machine busy with other things needs to begin them all before the first answer.
@pytest.mark.parametrize(("allowed", "latency"), [(128, 2.0), (50, 1.0), (8, 0.1)])
def test_far_away_more_of_them_are_under_way(
    server: RangeServer, allowed: int, latency: float
) -> None:
    server.reset()
    server.configure(latency=latency)
    options = StorageOptions(rate=RatePolicy(in_flight=allowed))
    urls = [f"{server.url}/cog.tif"] * 150
    found = run(fetch_headers(urls, options=options))
    assert all(isinstance(one, TiffHeader) for one in found)
    assert len(found) == 150
    assert server.counters().peak_in_flight == allowed
    server.configure(latency=0.0)


def test_who_gives_up_leaves_nothing_behind(server: RangeServer) -> None:
    server.configure(latency=5.0)

    async def main() -> set[asyncio.Task[Any]]:
        before = asyncio.all_tasks()
        reading = asyncio.ensure_future(fetch_headers([f"{server.url}/cog.tif"] * 200))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        return asyncio.all_tasks() - before

    assert run(main()) == set()
    server.configure(latency=0.0)


def test_what_is_no_error_of_a_file_is_raised_as_it_is(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> RangeResponse:
        raise OSError(24, "too many open files")

    monkeypatch.setattr(headers, "read_range", broken)
    with pytest.raises(OSError, match="too many open files"):
        run(fetch_headers([f"{server.url}/cog.tif"] * 3))


def test_a_file_that_changes_while_its_header_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def changing(url: str, start: int, stop: int, *, options: object) -> RangeResponse:
        response = await read_range(url, start, stop)
        return dataclasses.replace(response, etag=f"version {start > 0}")

    monkeypatch.setattr(headers, "read_range", changing)
    with pytest.raises(StaleIndexError):
        run(fetch_header(str(folder / "cog.tif"), first_read=16))
