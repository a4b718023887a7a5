"""Requests: every range in exactly one, none wider than it may be."""

from __future__ import annotations

import itertools
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.plan.coalesce import coalesce, merged_sizes

RANGES = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 400)), max_size=40)


@given(RANGES, st.integers(0, 300), st.integers(100, 2000))
def test_every_range_lies_in_exactly_one_request(
    ranges: list[tuple[int, int]], gap: int, limit: int
) -> None:
    starts = np.array([a for a, _ in ranges], np.int64)
    stops = np.array([a + n for a, n in ranges], np.int64)
    found = coalesce(starts, stops, gap=gap, limit=limit)
    members = [k for m in found for k in m.members]
    assert sorted(members) == list(range(len(ranges)))
    longest = int((stops - starts).max(initial=0))
    for m in found:
        assert m.start == min(starts[list(m.members)])
        assert m.stop == max(stops[list(m.members)])
        assert m.stop - m.start <= max(limit, longest)
        # No hole within a request is wider than the gap.
        reached = m.start
        for k in m.members:
            assert starts[k] - reached <= gap
            reached = max(reached, int(stops[k]))
    assert [m.start for m in found] == sorted(m.start for m in found)
    # What could have been one request is one.
    for a, b in itertools.pairwise(found):
        assert (
            b.start - a.stop > gap
            or b.stop - a.start > limit
            or any(stops[k] - a.start > limit for k in b.members)
        )


def test_known_merges() -> None:
    starts, stops = np.array([100, 0, 250]), np.array([200, 100, 300])
    assert [(m.start, m.stop, m.members) for m in coalesce(starts, stops, gap=50, limit=1000)] == [
        (0, 300, (1, 0, 2))
    ]
    assert [(m.start, m.stop) for m in coalesce(starts, stops, gap=49, limit=1000)] == [
        (0, 200),
        (250, 300),
    ]
    assert [(m.start, m.stop) for m in coalesce(starts, stops, gap=50, limit=200)] == [
        (0, 200),
        (250, 300),
    ]
    # Offsets beyond 4 GiB stay what they are.
    far = np.array([2**40, 2**40 + 10])
    assert coalesce(far, far + 10)[0].start == 2**40


@given(st.lists(RANGES, max_size=6), st.integers(0, 300), st.integers(100, 2000))
def test_many_sets_are_merged_as_each_alone(
    sets: list[list[tuple[int, int]]], gap: int, limit: int
) -> None:
    keys, starts, stops, ends = [], [], [], []
    requests = size = 0
    for key, ranges in enumerate(sets):
        own = sorted(ranges)
        a = np.array([low for low, _ in own], np.int64)
        b = np.array([low + n for low, n in own], np.int64)
        e = b - (b * 7 + a) % (b - a)  # some of each, all of a few
        merged = coalesce(a, b, e, gap=gap, limit=limit)
        requests += len(merged)
        size += sum(m.stop - m.start for m in merged)
        keys.append(np.full(len(own), key, np.int64))
        starts.append(a)
        stops.append(b)
        ends.append(e)
    parts = (keys, starts, stops, ends)
    joined = [np.concatenate([*part, np.zeros(0, np.int64)]) for part in parts]
    assert merged_sizes(*joined, gap=gap, limit=limit) == (requests, size)


@given(RANGES, st.integers(0, 300), st.integers(100, 2000), st.randoms(use_true_random=False))
def test_asking_for_less_makes_no_more_requests(
    ranges: list[tuple[int, int]], gap: int, limit: int, chance: Random
) -> None:
    starts = np.array([a for a, _ in ranges], np.int64)
    stops = np.array([a + n for a, n in ranges], np.int64)
    ends = np.array([a + chance.randint(1, n) for a, n in ranges], np.int64)
    whole = coalesce(starts, stops, gap=gap, limit=limit)
    found = coalesce(starts, stops, ends, gap=gap, limit=limit)
    assert [(m.start, m.members) for m in found] == [(m.start, m.members) for m in whole]
    for less, more in zip(found, whole):
        assert less.stop == max(ends[list(less.members)])
        assert less.stop <= more.stop
