"""Is every pixel of every step covered? Painted pixel by pixel, as an oracle."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.grid.warp import AxisMap, CrsMap
from rasteret_dask.plan.cover import has_gaps
from rasteret_dask.plan.sources import SourceTable

H, W = 6, 7
WINDOW = st.tuples(st.integers(0, 3), st.integers(3, H), st.integers(0, 3), st.integers(3, W))


def table(
    windows: list[tuple[int, int, int, int]], steps: list[int], crs: bool = False
) -> SourceTable:
    maps = (AxisMap(1.0, 0.0, 1.0, 0.0), CrsMap("a", "b", (1,) * 6, (1,) * 6, 1))
    blank = {f.name: () for f in dataclasses.fields(SourceTable)}
    return SourceTable(
        **{
            **blank,
            "steps": np.array(steps, np.int64),
            "windows": np.array(windows, np.int64).reshape(-1, 4),
            "maps": maps,
            "map_ids": np.full(len(steps), int(crs)),
        }
    )  # type: ignore[arg-type]


@given(st.lists(st.tuples(WINDOW, st.integers(0, 1)), max_size=12))
def test_gaps_are_found(items: list[tuple[tuple[int, int, int, int], int]]) -> None:
    items = sorted(items, key=lambda i: i[1])
    painted = np.zeros((2, H, W), bool)
    for (r0, r1, c0, c1), step in items:
        painted[step, r0:r1, c0:c1] = True
    found = has_gaps(table([w for w, _ in items], [s for _, s in items]), (2, H, W))
    assert found == (not painted.all())


def test_another_crs_may_leave_gaps() -> None:
    assert not has_gaps(table([(0, H, 0, W)], [0]), (1, H, W))
    assert has_gaps(table([(0, H, 0, W)], [0], crs=True), (1, H, W))
