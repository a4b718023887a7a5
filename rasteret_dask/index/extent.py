"""When and where the items of a collection are, all together."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_dask.grid.geobox import Bounds
from rasteret_dask.index.commit import Commit


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
    if pc.any(crossing).as_py():
        # Boxes over the antimeridian: everything is seen from there, with western longitudes beyond
        # 180.
        east_of = {
            n: pc.if_else(pc.less(column[n], 0), pc.add(column[n], 360), column[n])
            for n in ("xmin", "xmax")
        }
        west, east = pc.min(east_of["xmin"]).as_py(), pc.max(east_of["xmax"]).as_py()
        return west, south, east - 360 if east > 180 else east, north
    return pc.min(column["xmin"]).as_py(), south, pc.max(column["xmax"]).as_py(), north
