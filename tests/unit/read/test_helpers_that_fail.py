"""A helper that cannot decode its tile, while the calling thread waits for one that its bytes keep from coming."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from budget import settles, until

from rasteret_dask import open_tiff
from rasteret_dask.errors import RasteretError, TileReadError
from rasteret_dask.grid.tiles import Piece
from rasteret_dask.model import RatePolicy, StorageOptions
from rasteret_dask.read.engine import Load, Loading
from rasteret_dask.read.pixels import _source
from rasteret_dask.storage.fetch import ROOM
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import RangeServer

SIDES = {"a": 64, "b": 96, "c": 128}


def loads(folder: Path, server: RangeServer) -> list[Load]:
    found = []
    for name, side in SIDES.items():
        image = np.full((side, side), 7, np.uint8)
        how: dict[str, Any] = {"driver": "GTiff", "compress": None, "overviews": 0}
        make_cog(folder / f"{name}.tif", image, blocksize=side, **how)
        layer = open_tiff(f"{server.url}/{name}.tif").layers[0]
        piece = Piece(0, 0, (0, side), (0, side), 0, 0)
        found.append(Load(_source(layer, 0, None), [piece], np.zeros((side, side), np.uint8), name))
    return found


@pytest.mark.parametrize("error", [TileReadError("corrupt"), ValueError("odd")])
@pytest.mark.parametrize("recording", [False, True])
def test_nobody_waits_for_ever(tmp_path: Path, error: Exception, recording: bool) -> None:
    ended: list[Any] = []
    with RangeServer(tmp_path) as server:
        given = loads(tmp_path, server)
        sizes = [int(one.source.counts[0]) for one in given]
        assert sizes[2] > sizes[0]
        # The third has no room before the second has been used.
        budget = sizes[0] + sizes[1] + 2 * ROOM
        options = StorageOptions(rate=RatePolicy(budget=budget))

        def decode(use: Any, data: Any) -> None:
            if use.source.url.endswith("b.tif"):
                raise error
            time.sleep(0.2)

        loading = Loading(given, options, decode=decode, recording=recording)
        assert until(lambda: loading._fetch.backlog() == 2)

        def finish() -> None:
            try:
                loading.finish()
                ended.append(None)
            except (RasteretError, ValueError) as caught:
                ended.append(caught)

        # A daemon: what waits for ever must fail the test, not stop it.
        thread = threading.Thread(target=finish, daemon=True)
        thread.start()
        thread.join(timeout=20)
        assert len(ended) == 1, "it waits for ever"
        if recording and isinstance(error, TileReadError):
            assert ended == [None]
            assert [failed for _, failed in loading.failures] == [error]
        else:
            assert type(ended[0]) is type(error)
        assert settles(options)
