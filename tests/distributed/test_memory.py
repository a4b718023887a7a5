"""What a worker's memory comes to is what the campaign promises: a small cut of `python -m benchmarks.memory`, on real worker processes."""

from __future__ import annotations

import pytest

from benchmarks.memory import CASES, MB, Case, measure, place


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_workers_stay_within_what_is_promised(case: Case, threads: int) -> None:
    with place(2048) as at:
        found = measure(case, at, workers=1, threads=threads, limit=512 * MB, times=2)
    assert found.cube >= 2 * 512 * MB
    assert found.right
    assert found.peaks, "a worker died"
    for peak, promised in zip(found.peaks, found.promised, strict=True):
        assert peak < promised, found
