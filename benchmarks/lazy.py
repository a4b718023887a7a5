"""W8, opening lazily: ``python -m benchmarks.lazy [scenes] [latency in ms]``.

A cube of all of 1,000 scenes × 4 bands is opened, then one 256² window of one scene is computed; the same of a
collection of that scene alone; in turns, each in a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from benchmarks.data import BANDS, Scene, aliases, folder, generate, scenes
from benchmarks.measure import machine
from rasteret_dask.testing.server import RangeServer

ROUNDS = 3


def build(made: list[Scene], root: str, name: str, where: str) -> None:
    import rasteret_dask as rd

    rd.build_from_items([scene.stac(root) for scene in made], name=name, workspace_dir=where)


def child(name: str, where: str, number: int) -> dict[str, Any]:
    """Open, then one window of scene `number` at the same place of the files for everyone."""
    import numpy as np

    import rasteret_dask as rd
    from benchmarks.child import peak_memory

    warm = rd.load("warm", workspace_dir=where).get_xarray(bands=list(BANDS))
    warm.isel(y=slice(0, 64), x=slice(0, 64)).compute()
    began = time.perf_counter()
    cube = rd.load(name, workspace_dir=where).get_xarray(bands=list(BANDS))
    opened = time.perf_counter() - began
    began = time.perf_counter()
    window = cube.isel(time=number, y=slice(4000, 4256), x=slice(6000, 6256)).compute()
    computed = time.perf_counter() - began
    pixels = np.stack([window[band].values for band in BANDS])
    return {
        "open": opened, "window": computed, "memory": peak_memory(), "crc": zlib.crc32(pixels.data),
    }  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        return
    count, latency = [*map(int, sys.argv[1:]), *(1000, 20)[len(sys.argv) - 1 :]]
    data = folder(os.environ.get("RASTERET_BENCH_DATA"))
    generate(data)
    made = scenes("s2", count + 1)
    chosen = count // 2
    sets = {"all": made[:count], "one": [made[chosen]], "warm": [made[count]]}
    results: dict[str, list[dict[str, Any]]] = {"one": [], "all": []}
    with (
        tempfile.TemporaryDirectory(prefix="lazy-") as where,
        RangeServer(Path(data), aliases=aliases(made)) as server,
    ):
        for name, part in sets.items():
            build(part, server.url, name, where)
        server.configure(latency=latency / 1000)
        for _ in range(ROUNDS):
            for name, got in results.items():
                number = chosen if name == "all" else 0
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.lazy", "--child", name, where, str(number)],
                    stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                got.append(json.loads(done.stdout.splitlines()[-1]))
    print(machine(), f"{latency} ms a request, medians of {ROUNDS}")
    for name, got in results.items():
        size = count if name == "all" else 1
        middle = {k: statistics.median(g[k] for g in got) for k in ("open", "window", "memory")}
        print(
            f"{size:6d} scenes × {len(BANDS)} bands: open {middle['open']:.3f} s, "
            f"window {middle['window']:.3f} s, peak {middle['memory'] / 1e6:.0f} MB"
        )
    crcs = {g["crc"] for got in results.values() for g in got}
    print("pixels", "equal" if len(crcs) == 1 else "differ")


if __name__ == "__main__":
    main()
