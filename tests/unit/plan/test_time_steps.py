"""Items into steps: by key, sorted by the earliest member, by the sun where that is asked for."""

from __future__ import annotations

import datetime as dt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.plan.steps import group, solar_days, split_acquisitions

TIMES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 5)), min_size=1, max_size=25)


@given(TIMES)
def test_a_step_is_its_members(items: list[tuple[int, int]]) -> None:
    seconds = np.array([t for t, _ in items], "datetime64[s]").astype("datetime64[ns]")
    keys = [k for _, k in items]
    steps = group(seconds, keys)
    assert len(steps) == len(set(keys))
    assert (np.diff(steps.labels.astype(np.int64)) >= 0).all()
    for number in range(len(steps)):
        members = np.flatnonzero(steps.steps == number)
        assert len({keys[k] for k in members}) == 1
        assert steps.labels[number] == seconds[members].min()
        assert steps.last[number] == seconds[members].max()


@given(st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2040, 1, 1)), st.floats(-180, 180))
def test_the_solar_day_is_the_date_of_local_solar_time(when: dt.datetime, longitude: float) -> None:
    when = when.replace(microsecond=0)
    local = when + dt.timedelta(hours=longitude / 15)
    found = solar_days(np.array([when], "datetime64[ns]"), np.array([longitude]))
    day = (local.date() - dt.date(1970, 1, 1)).days
    # Longitudes are no whole seconds: at midnight itself a microsecond may decide.
    midnight = abs((local - dt.datetime.combine(local.date(), dt.time())).total_seconds())
    assert found[0] == day or min(midnight, 86400 - midnight) < 1e-3


def test_fiji_and_alaska_have_days_of_their_own() -> None:
    times = np.array(["2023-07-01T22:00", "2023-07-02T01:00"], "datetime64[ns]")
    assert len(set(solar_days(times, np.array([178.0, 178.0])).tolist())) == 1
    assert len(set(solar_days(times, np.array([-150.0, -150.0])).tolist())) == 1
    assert len(set(solar_days(times, np.array([0.0, 0.0])).tolist())) == 2


def test_torn_acquisitions_are_counted() -> None:
    times = np.array([0, 14, 100, 200], "datetime64[s]").astype("datetime64[ns]")
    steps = group(times, times.tolist())
    assert split_acquisitions(steps, ["a", "a", "b", None]) == 1
    joined = group(times, [0, 0, 1, 2])
    assert split_acquisitions(joined, ["a", "a", "b", None]) == 0


def test_nothing_makes_no_steps() -> None:
    assert len(group(np.array([], "datetime64[ns]"), [])) == 0
