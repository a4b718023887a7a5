"""Days that are computed; the oracles are NumPy's and pandas' calendars."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import config, dates

TODAY = dt.date(2024, 2, 29)


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("today", pd.DateOffset(days=0)),
        ("today - 30d", pd.DateOffset(days=-30)),
        ("today + 2w", pd.DateOffset(weeks=2)),
        ("today - 1y", pd.DateOffset(years=-1)),
        (" today - 1m ", pd.DateOffset(months=-1)),
        ("today + 25m", pd.DateOffset(months=25)),
    ],
)
def test_sums_from_today(text, offset):
    assert dates.resolve(text, TODAY) == str((pd.Timestamp(TODAY) + offset).date())


def test_the_last_of_a_month_stays_in_the_next():
    assert dates.resolve("2023-01-31 + 1m") == "2023-02-28"
    assert dates.resolve("2024-01-31 + 1m - 1d") == "2024-02-28"
    assert dates.resolve("2023-01-01 + 1y - 1d") == "2023-12-31"


def test_today_is_that_of_utc():
    assert abs(np.datetime64(dates.resolve("today")) - np.datetime64("now")) < np.timedelta64(
        2, "D"
    )


@pytest.mark.parametrize(
    "text", ["2023-06-01", "2023-06-01T10:00:00+02:00", "2023-06-01 10:00", "{year}-01-01", "2023"]
)
def test_what_is_no_sum_stays(text):
    assert dates.resolve(text) == text


@pytest.mark.parametrize(
    "text", ["today-3d", "today + 3", "2023-02-30 + 1d", "today - 99999y", "today 3d"]
)
def test_nonsense_is_refused_with_its_path(text):
    document = {
        "version": 1,
        "collection": {"load": "x", "subset": {"date_range": [text, "2023-08-31"]}},
        "cube": {"bands": ["B04"]},
        "outputs": [{"zarr": "x.zarr"}],
    }
    with pytest.raises(ConfigError, match=r"collection\.subset\.date_range\[0\]"):
        config.from_mapping(document)


def test_a_pipeline_holds_days_and_no_sums():
    document = {
        "version": 1,
        "collection": {"load": "x", "subset": {"date_range": ["2023-06-01 - 1m", "today"]}},
        "cube": {"bands": ["B04"]},
        "outputs": [{"zarr": "x.zarr"}],
    }
    made = config.from_mapping(document)
    assert made.collection.subset.date_range[0] == "2023-05-01"
    assert made.collection.subset.date_range[1].startswith("20")
