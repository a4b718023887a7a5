"""What an answer means, and how long to wait."""

from __future__ import annotations

import random

import aiohttp
import pytest
from obstore import exceptions as obstore_errors

from rasteret_dask import errors
from rasteret_dask.model import RetryPolicy
from rasteret_dask.storage.retry import classify, delay, from_status

URL = "https://h.org/x.tif"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.AccessError),
        (403, errors.AccessError),
        (404, errors.NotFoundError),
        (410, errors.NotFoundError),
        (408, errors.TransientError),
        (425, errors.TransientError),
        (429, errors.TransientError),
        (500, errors.TransientError),
        (502, errors.TransientError),
        (503, errors.TransientError),
        (504, errors.TransientError),
        (400, errors.SourceError),
        (405, errors.SourceError),
        (416, errors.SourceError),
    ],
)
def test_statuses(status: int, kind: type[errors.SourceError]) -> None:
    found = from_status(status, URL)
    assert type(found) is kind
    assert found.url == URL
    assert str(status) in found.message


class Answer(Exception):
    """As aiohttp's: the status is a number."""

    def __init__(self, status: int) -> None:
        super().__init__("https://h.org/x.tif?sig=SECRET")
        self.status = status


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("x"), errors.NotFoundError),
        (PermissionError("x"), errors.AccessError),
        (TimeoutError("x"), errors.TransientError),
        (ConnectionResetError("x"), errors.TransientError),
        (obstore_errors.NotFoundError("x"), errors.NotFoundError),
        (obstore_errors.PermissionDeniedError("x"), errors.AccessError),
        (obstore_errors.UnauthenticatedError("x"), errors.AccessError),
        (obstore_errors.NotSupportedError("Range request not supported"), errors.RangeIgnoredError),
        (obstore_errors.GenericError("… status code: 503 …"), errors.TransientError),
        (obstore_errors.GenericError("… status code: 400 …"), errors.SourceError),
        (obstore_errors.GenericError("reset by peer"), errors.TransientError),
        (aiohttp.ClientPayloadError("cut off"), errors.TransientError),
        (Answer(404), errors.NotFoundError),
        (Answer(429), errors.TransientError),
        (errors.RangeIgnoredError("x"), errors.RangeIgnoredError),
    ],
)
def test_the_table_of_errors(error: Exception, kind: type[errors.SourceError]) -> None:
    found = classify(error, URL)
    assert type(found) is kind
    assert found.url == URL


@pytest.mark.parametrize("status", [404, 403, 503, 400])
def test_a_stores_own_text_never_comes_through(status: int) -> None:
    for error in (
        obstore_errors.GenericError(f"https://h.org/x.tif?sig=SECRET status code: {status}"),
        Answer(status),
        OSError("https://h.org/x.tif?sig=SECRET"),
    ):
        found = classify(error, URL)
        assert "SECRET" not in str(found)
        assert "SECRET" not in repr(found)


def test_pauses_grow_up_to_the_cap() -> None:
    policy = RetryPolicy(base=0.5, cap=3.0)
    rng = random.Random(1)
    for attempt, most in [(1, 1.0), (2, 2.0), (3, 3.0), (9, 3.0), (2000, 3.0)]:
        pauses = [delay(attempt, policy, rng) for _ in range(200)]
        assert min(pauses) >= 0
        assert most * 0.8 < max(pauses) <= most
