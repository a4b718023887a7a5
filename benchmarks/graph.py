"""Opening many scenes: seconds, memory, bytes of graph a tile-read, and what the scheduler pays.

``python -m benchmarks.graph [scenes]``: rows of generated headers (121 tiles a band), no server and no pixels.
"""

from __future__ import annotations

import datetime as dt
import resource
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa
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


def main() -> None:
    """Print one line for each number of scenes."""
    sizes = [int(v) for v in sys.argv[1:]] or [1000]
    # Imports and first calls are nobody's.
    open_cube(rows(2), _request({}))
    print("scenes  open s (CPU)  graph B/tile-read  materialise s  explain s  peak MB")
    for scenes in sizes:
        table = rows(scenes)
        wall, cpu = time.perf_counter(), time.process_time()
        cube = open_cube(table, _request({}))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        graphs = [cube[band].data.dask for band in BANDS]
        size = sum(len(dumps(g)) for g in graphs)
        began = time.perf_counter()
        tasks = sum(len(dict(g)) for g in graphs)
        materialise = time.perf_counter() - began
        began = time.perf_counter()
        explain_plans(plan_cube(table, _request({})).bands)
        explain = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        reads = scenes * len(BANDS) * COUNT
        print(
            f"{scenes:6d}  {wall:.2f} ({cpu:.2f})  {size / reads:6.1f}  "
            f"{materialise:.2f} for {tasks} tasks  {explain:.2f}  {peak:.0f}"
        )


def _request(options: dict[str, Any]) -> Any:
    bands = tuple((band, band) for band in BANDS)
    return make_request(bands, areas=None, bounds=None, bounds_crs="OGC:CRS84", options=options)


if __name__ == "__main__":
    main()
