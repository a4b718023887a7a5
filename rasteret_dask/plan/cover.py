"""Does every pixel of every time step have a source?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rasteret_dask.grid.warp import AxisMap
from rasteret_dask.plan.sources import SourceTable


def has_gaps(table: SourceTable, shape: tuple[int, int, int]) -> bool:
    """Whether some pixel of a cube may have no source at all.

    Parameters
    ----------
    table : SourceTable
    shape : tuple of int
        Time, y, x.

    Returns
    -------
    bool
        True also when a source comes from another CRS, where only the reading tells which pixels it covers.
    """
    steps, height, width = shape
    exact = np.array([isinstance(m, AxisMap) for m in table.maps], dtype=bool)
    for step in range(steps):
        low, high = np.searchsorted(table.steps, [step, step + 1])
        ids = table.map_ids[low:high]
        if not len(ids) or not exact[ids].all():
            return True
        if not _covered(np.unique(table.windows[low:high], axis=0), height, width):
            return True
    return False


def _covered(windows: npt.NDArray[np.int64], height: int, width: int) -> bool:
    """Whether rectangles fill a plane: painted on a grid of their own edges."""
    rows = np.unique(np.concatenate([windows[:, 0], windows[:, 1], [0, height]]))
    cols = np.unique(np.concatenate([windows[:, 2], windows[:, 3], [0, width]]))
    painted = np.zeros((len(rows) - 1, len(cols) - 1), dtype=bool)
    for r0, r1, c0, c1 in windows.tolist():
        i0, i1 = np.searchsorted(rows, [r0, r1])
        j0, j1 = np.searchsorted(cols, [c0, c1])
        painted[i0:i1, j0:j1] = True
    return bool(painted.all())
