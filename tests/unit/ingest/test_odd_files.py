"""Files that no honest writer makes, and chains of pages: each fails by itself, or is read as far as it is one image."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from affine import Affine
from handmade import Scene, collect
from rasterio.windows import Window
from scripted import Answer, Asked, Scripted, part

from rasteret_dask.errors import HeaderError, RasteretError, StaleIndexError
from rasteret_dask.index.rows import header_to_struct
from rasteret_dask.ingest.headers import fetch_header, fetch_headers
from rasteret_dask.read.pixels import open_tiff
from rasteret_dask.storage.loop import run
from rasteret_dask.testing.cog import make_cog

AT = Affine(10, 0, 500_000, 0, -10, 5_200_000)
RNG = np.random.default_rng(3)
GEO: list[Any] = [
    (33550, "d", 3, (10.0, 10.0, 0.0), True),
    (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 5_200_000.0, 0.0), True),
    (34735, "H", 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True),
]


def noise(side: int) -> np.ndarray:
    return RNG.integers(1, 250, (side, side)).astype(np.uint8)


# --- pages -------------------------------------------------------------------------------------------
def test_an_overview_is_that_of_the_first_page(tmp_path: Path) -> None:
    first, second = noise(256), noise(256)
    with tifffile.TiffWriter(tmp_path / "p.tif") as writer:
        for image in (first, second):
            how: dict[str, Any] = {"tile": (128, 128), "extratags": GEO, "metadata": None}
            writer.write(image, **how)
            how["extratags"] = []
            writer.write(image[::2, ::2], subfiletype=1, **how)
    found = open_tiff(str(tmp_path / "p.tif"))
    assert len(found.layers) == 2
    assert np.array_equal(found.read(level=1)[0], first[::2, ::2])
    assert any("second reduced image" in text for text in found.header.warnings)
    cube = collect(Scene("a", {"v": tmp_path / "p.tif"})).get_xarray(resolution=20)
    assert np.array_equal(cube.v.values[0], first[::2, ::2])


def test_a_file_of_many_pages_is_its_first_one(tmp_path: Path) -> None:
    images = [noise(64) for _ in range(90)]
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for image in images:
            writer.write(image, contiguous=False, metadata=None)
    found = open_tiff(str(tmp_path / "pages.tif"))
    assert np.array_equal(found.read()[0], images[0])
    assert any("many pages" in text for text in found.header.warnings)


# --- damage ------------------------------------------------------------------------------------------
def patched(path: Path, tag: int, kind: int, value: bytes) -> Path:
    """A file one of whose tags is of another type, its value in place."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as found:
        at = found.pages[0].tags[tag].offset
    data[at + 2 : at + 4] = struct.pack("<H", kind)
    data[at + 4 : at + 8] = struct.pack("<I", 1)
    data[at + 8 : at + 12] = value.ljust(4, b"\0")
    path.write_bytes(bytes(data))
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return make_cog(
        tmp_path / "a.tif", noise(64), transform=AT, driver="GTiff", blocksize=64, overviews=0
    )


def test_numbers_beyond_their_kind_are_a_headers_error_and_no_builds(
    plain: Path, tmp_path: Path
) -> None:
    good = make_cog(tmp_path / "good.tif", noise(64), transform=AT, overviews=0)
    patched(plain, 262, 4, struct.pack("<I", 0xFFFFFFFF))
    bad, whole = run(fetch_headers([str(plain), str(good)]))
    assert isinstance(bad, HeaderError)
    assert not isinstance(whole, RasteretError)
    header_to_struct(whole, 0)
    with pytest.raises(HeaderError) as caught:
        open_tiff(str(plain))
    assert caught.value.url == str(plain)


def test_whatever_a_parser_raises_is_a_headers_error(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise OverflowError("int too large")

    monkeypatch.setattr("rasteret_dask.tiff.header.read_metadata", fail)
    with pytest.raises(HeaderError, match="OverflowError"):
        run(fetch_header(str(plain)))


def test_tiles_that_lie_nowhere(tmp_path: Path) -> None:
    path = make_cog(
        tmp_path / "b.tif",
        noise(64),
        transform=AT,
        driver="GTiff",
        blocksize=64,
        overviews=0,
        bigtiff="YES",
    )
    with tifffile.TiffFile(path, mode="r+b") as found:
        found.pages[0].tags[324].overwrite([2**63 + 5])
    with pytest.raises(HeaderError, match="no file is large enough"):
        open_tiff(str(path))
    with tifffile.TiffFile(path, mode="r+b") as found:
        found.pages[0].tags[324].overwrite([8])
        found.pages[0].tags[325].overwrite([2**50])
    with pytest.raises(RasteretError, match="ends before"):
        open_tiff(str(path)).read()


# --- versions ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("tagged", [True, False])
def test_a_file_that_has_grown_is_another_one(plain: Path, tmp_path: Path, tagged: bool) -> None:
    """Without an ETag its size is all there is to know it by."""
    content = [plain.read_bytes()]

    def answer(asked: Asked, _: int) -> Answer:
        said = part(asked, content[0])
        said.headers["ETag"] = f'"{len(content[0])}"'
        if not tagged:
            del said.headers["ETag"]
        return said

    with Scripted(answer) as server:
        image = open_tiff(f"{server.url}/a.tif")
        expected = image.read()
        content[0] = content[0] + b"more"
        with pytest.raises(StaleIndexError):
            image.read()
        again = open_tiff(f"{server.url}/a.tif")
        assert np.array_equal(again.read(window=Window(0, 0, 64, 64)), expected)


def test_an_escaped_slash_is_no_separator(plain: Path) -> None:
    content = plain.read_bytes()

    def answer(asked: Asked, _: int) -> Answer:
        if asked.target != "/files/dem%2Fa.tif/raw":
            return Answer(404)
        return part(asked, content)

    with Scripted(answer) as server:
        assert open_tiff(f"{server.url}/files/dem%2Fa.tif/raw").read().shape[-1] == 64
