"""Opening many scenes: seconds, memory, bytes of graph a tile-read, and what the scheduler pays.

``python -m benchmarks.graph [scenes ...]``: rows of generated headers (121 tiles a band), no server and no pixels. The scheduler is a
process of its own without workers, so that its seconds and memory are those of unpacking the graph and knowing its tasks, and nothing else.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from distributed import Client
from distributed.protocol.pickle import dumps

from rasteret_dask.index import schema
from rasteret_dask.plan.explain import explain_plans
from rasteret_dask.read.cube import open_cube, plan_cube
from rasteret_dask.read.request import make_request

BANDS = ("B02", "B03", "B04", "B08")
SIDE, TILE, COUNT = 10980, 1024, 121


def rows(scenes: int) -> pa.Table:
    """Scenes of one MGRS tile, one a day: what an index of real files looks like, with random byte counts."""
    rng = np.random.default_rng(0)
    made = []
    start = dt.datetime(2015, 7, 1)
    for k in range(scenes):
        row: dict[str, Any] = {
            "id": f"S2A_33UXP_{k:06d}_0_L2A",
            "collection": "sentinel-2-l2a",
            "datetime": start + dt.timedelta(days=k),
            "bbox": {"xmin": 16.3, "ymin": 47.8, "xmax": 17.8, "ymax": 48.8},
            "assets": {},
        }
        for band in BANDS:
            counts = rng.integers(700_000, 1_700_000, COUNT)
            offsets = 30_000 + np.concatenate([[0], np.cumsum(counts)[:-1]])
            url = f"https://sentinel-cogs.s3.us-west-2.amazonaws.com/33/U/XP/{k}/{band}.tif"
            row["assets"][band] = {"href": url, "band_index": 0, "key": band}
            row[schema.band_column(band)] = {
                "image_width": SIDE,
                "image_height": SIDE,
                "tile_width": TILE,
                "tile_height": TILE,
                "dtype": "uint16",
                "transform": [10.0, 600_000.0, -10.0, 5_400_000.0],
                "predictor": 2,
                "compression": 8,
                "tile_offsets": offsets,
                "tile_byte_counts": counts,
                "nodata_text": "0",
                "samples_per_pixel": 1,
                "planar_configuration": 1,
                "photometric": 1,
                "bits_per_sample": 16,
                "crs": "EPSG:32633",
            }
        made.append(row)
    return pa.Table.from_pylist(made, schema=schema.make_schema(BANDS))


@contextlib.contextmanager
def scheduler() -> Iterator[tuple[Client, psutil.Process]]:
    """A Dask scheduler in a process of its own, without any worker."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "scheduler.json")
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
        command += ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", file]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 60
            while not os.path.exists(file) and time.monotonic() < until:
                time.sleep(0.1)
            with Client(scheduler_file=file, set_as_default=False) as client:
                yield client, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def scheduler_cost(arrays: list[Any]) -> tuple[int, float, float]:
    """Tasks, CPU seconds and MiB of a scheduler that is given arrays to compute."""
    with scheduler() as (client, process):
        # What it imports to unpack our graphs is nobody's.
        small = open_cube(rows(2), _request({}))
        warm = client.compute([small[band].data for band in BANDS])
        _settled(client, process)
        cpu, memory = _cpu(process), process.memory_info().rss
        before = client.run_on_scheduler(_tasks)
        held = client.compute(arrays)
        while client.run_on_scheduler(_tasks) <= before:
            time.sleep(0.2)
        _settled(client, process)
        tasks = client.run_on_scheduler(_tasks) - before
        spent, grown = _cpu(process) - cpu, (process.memory_info().rss - memory) / 2**20
        del warm, held
        return tasks, spent, grown


def _tasks(dask_scheduler: Any = None) -> int:
    return len(dask_scheduler.tasks)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _settled(client: Client, process: psutil.Process) -> None:
    """Wait until the scheduler has nothing to do for a second."""
    quiet, last = 0, _cpu(process)
    while quiet < 5:
        time.sleep(0.2)
        now = _cpu(process)
        quiet = quiet + 1 if now - last < 0.05 else 0
        last = now


def main() -> None:
    """Print one line for each number of scenes."""
    sizes = [int(v) for v in sys.argv[1:]] or [1000]
    # Imports and first calls are nobody's.
    open_cube(rows(2), _request({}))
    head = (
        "scenes",
        "tile-reads",
        "open s (CPU)",
        "graph B/tile-read",
        "explain s (CPU)",
        "peak MB",
    )
    print("  ".join((*head, "tasks", "scheduler CPU s", "scheduler MB")))
    for scenes in sizes:
        table = rows(scenes)
        wall, cpu = time.perf_counter(), time.process_time()
        cube = open_cube(table, _request({}))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = sum(len(dumps(cube[band].data.dask)) for band in BANDS)
        began, spent = time.perf_counter(), time.process_time()
        explain_plans(plan_cube(table, _request({})).bands)
        explain, explained = time.perf_counter() - began, time.process_time() - spent
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        reads = scenes * len(BANDS) * COUNT
        tasks, spent, grown = scheduler_cost([cube[band].data for band in BANDS])
        print(
            f"{scenes:6d}  {reads:9d}  {wall:.2f} ({cpu:.2f})  {size / reads:6.1f}  {explain:.2f} ({explained:.2f})  "
            f"{peak:.0f}  {tasks}  {spent:.1f}  {grown:.0f}",
            flush=True,
        )


def _request(options: dict[str, Any]) -> Any:
    bands = tuple((band, band) for band in BANDS)
    return make_request(bands, areas=None, bounds=None, bounds_crs="OGC:CRS84", options=options)


if __name__ == "__main__":
    main()
