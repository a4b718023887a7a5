"""When and where the items of a collection are, all together."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.grid.geobox import Bounds
from rasteret_dask.index.commit import Commit

Floats = npt.NDArray[np.float64]


def told_extent(commit: Commit) -> dict[str, Any] | None:
    """Dates, CRS and bounds from what a commit says of its parts; None when it does not say all."""
    stats = [part.stats for part in commit.parts]
    spans = [s["datetime"] for s in stats]
    boxes = [s["bbox"] for s in stats]
    if not stats or not all(isinstance(span, list) for span in spans) or None in boxes:
        return None
    west, south, east, north = zip(*boxes, strict=True)
    return {
        "first": datetime.fromisoformat(min(first for first, _ in spans)),
        "last": datetime.fromisoformat(max(last for _, last in spans)),
        "crs": sorted({crs for s in stats for crs in s["crs"]}),
        "bounds": (min(west), min(south), max(east), max(north)),
    }


def silent_clouds(commit: Commit) -> int:
    """How many items do not say how cloudy they are."""
    return sum(int(part.stats.get("cloud_null", part.rows)) for part in commit.parts)


def bounds_of(boxes: pa.ChunkedArray) -> Bounds | None:
    """lon/lat box around all boxes; west > east when it crosses the antimeridian, None when there are none."""
    column = {n: pc.struct_field(boxes, n) for n in ("xmin", "ymin", "xmax", "ymax")}
    if column["xmin"].null_count == len(boxes):
        return None
    south, north = pc.min(column["ymin"]).as_py(), pc.max(column["ymax"]).as_py()
    crossing = pc.fill_null(pc.greater(column["xmin"], column["xmax"]), False)
    beyond = pc.or_(pc.greater(column["xmax"], 180), pc.less(column["xmin"], -180))
    if pc.any(pc.or_(crossing, pc.fill_null(beyond, False))).as_py():
        west, east = _around(*(pc.drop_null(column[n]).to_numpy() for n in ("xmin", "xmax")))
        return west, south, east, north
    return pc.min(column["xmin"]).as_py(), south, pc.max(column["xmax"]).as_py(), north


def _around(west: Floats, east: Floats) -> tuple[float, float]:
    """Longitudes of all boxes, some of which cross the antimeridian: the world without the widest gap between them."""
    width = np.where(east < west, east + 360.0 - west, east - west)
    first = (west + 180.0) % 360.0 - 180.0
    # The same a turn before, for those that go on over the first ones of this turn.
    starts, widths = np.concatenate([first - 360.0, first]), np.concatenate([width, width])
    order = np.argsort(starts, kind="stable")
    reach = np.maximum.accumulate((starts + widths)[order])
    here = np.arange(len(west), len(starts))
    gaps = starts[order][here] - reach[here - 1]
    k = here[int(gaps.argmax())]
    if gaps.max() <= 0.0:
        return -180.0, 180.0
    right = (float(reach[k - 1]) + 180.0) % 360.0 - 180.0
    return float(starts[order][k]), 180.0 if right == -180.0 else right
