"""Servers that refuse, lie and ask for patience, seen by each of the clients that may ask them."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from scripted import Answer, Asked, Scripted, part

from rasteret_dask import errors
from rasteret_dask.model import RatePolicy, RetryPolicy, StorageOptions
from rasteret_dask.storage import counters, http, source
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.retry import parse_retry_after
from rasteret_dask.storage.source import read_range

CONTENT = bytes(range(256)) * 40
# Each test has a policy of its own, hence a limiter of its own.
WAYS = {
    "own": lambda patch: "",
    "query": lambda patch: "?v=1",
    "aiohttp": lambda patch: patch.setattr(http, "_PATIENCE", 0) or "?v=2",
    "obstore": lambda patch: patch.setattr(source, "SMALL", 0) or "",
}


@pytest.fixture(params=list(WAYS))
def query(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What makes a URL, and this process, be asked by one client."""
    found = WAYS[request.param](monkeypatch)
    assert isinstance(found, str)
    return found


def options(number: int, **retry: float) -> StorageOptions:
    policy = RetryPolicy(**{"attempts": 4, "base": 0.001, "cap": 0.002, **retry})  # type: ignore[arg-type]
    return StorageOptions(retry=policy, rate=RatePolicy(budget=10_000_000 + number))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int, query: str) -> None:
    def answer(asked: Asked, number: int) -> Answer:
        return Answer(status) if number < 2 else part(asked, CONTENT)

    with Scripted(answer) as server:
        before = counters.snapshot()
        found = run(read_range(f"{server.url}/a.tif{query}", 10, 90, options=options(status)))
        spent = counters.snapshot() - before
    assert bytes(found.data) == CONTENT[10:90]
    assert (found.size, found.etag) == (len(CONTENT), '"1"')
    assert (spent.requests, spent.retries, spent.bytes) == (3, 2, 80)
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416])
def test_what_will_not_pass_is_not(status: int, query: str) -> None:
    with (
        Scripted(lambda asked, number: Answer(status)) as server,
        pytest.raises(errors.SourceError) as caught,
    ):
        run(read_range(f"{server.url}/a.tif{query}", 0, 9, options=options(1)))
    assert not isinstance(caught.value, errors.TransientError)
    assert caught.value.url == f"{server.url}/a.tif"
    assert len(server.asked) == 1


LIES = {
    "another start": "bytes 11-90/10240",
    "another stop": "bytes 10-70/10240",
    "nonsense": "bytes ten-20/all",
    "none": None,
}


@pytest.mark.parametrize("lie", list(LIES))
def test_bytes_of_another_place_are_never_taken(lie: str, query: str) -> None:
    def answer(asked: Asked, number: int) -> Answer:
        if number:
            return part(asked, CONTENT)
        said = LIES[lie]
        return Answer(206, CONTENT[11:91], {} if said is None else {"Content-Range": said})

    with Scripted(answer) as server:
        found = run(read_range(f"{server.url}/a.tif{query}", 10, 90, options=options(2)))
    assert bytes(found.data) == CONTENT[10:90]
    assert len(server.asked) == 2


def test_short_bodies(query: str) -> None:
    def answer(asked: Asked, number: int) -> Answer:
        right = part(asked, CONTENT)
        if number == 0:  # cut off
            return Answer(206, right.body[:30], right.headers, length=len(right.body))
        if number == 1:  # complete, as its length says, but not what was asked for
            return Answer(206, right.body[:30], right.headers)
        return right

    with Scripted(answer) as server:
        found = run(read_range(f"{server.url}/a.tif{query}", 10, 90, options=options(3)))
    assert bytes(found.data) == CONTENT[10:90]
    assert len(server.asked) == 3


@pytest.mark.parametrize(("status", "form"), [(429, "date"), (503, "seconds"), (503, "date")])
@pytest.mark.parametrize("large", [False, True])
def test_retry_after_is_obeyed(
    status: int, form: str, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(source, "SMALL", 0)

    def answer(asked: Asked, number: int) -> Answer:
        if number >= 2:
            return part(asked, CONTENT)
        said = "1" if form == "seconds" else formatdate(time.time() + 2.0, usegmt=True)
        return Answer(status, headers={"Retry-After": said})

    with Scripted(answer) as server:
        # obstore shows no headers of a first refusal; from then on they are seen.
        chosen = options(status + len(form) + 1000 * large)
        found = run(read_range(f"{server.url}/a.tif", 0, 9, options=chosen))
        pause = server.asked[2].at - server.asked[1].at
    assert bytes(found.data) == CONTENT[:9]
    assert pause >= 0.95


def test_a_server_that_asks_for_too_much_patience_is_not_waited_for() -> None:
    said = Answer(503, headers={"Retry-After": "86400"})
    with (
        Scripted(lambda asked, number: said) as server,
        pytest.raises(errors.TransientError, match="after 86400 s") as caught,
    ):
        run(read_range(f"{server.url}/a.tif", 0, 9, options=options(5)))
    assert len(server.asked) == 1
    assert "patience" in (caught.value.hint or "")


def test_429_pauses_the_host_for_everyone() -> None:
    def answer(asked: Asked, number: int) -> Answer:
        if number < 2:
            return Answer(429, headers={"Retry-After": "1"})
        return part(asked, CONTENT)

    async def both(url: str) -> None:
        await read_range(f"{url}/a.tif", 0, 9, options=chosen)
        await read_range(f"{url}/b.tif", 0, 9, options=chosen)

    chosen = options(6, attempts=2)
    with Scripted(answer) as server:
        with pytest.raises(errors.TransientError):
            run(both(server.url))
        run(read_range(f"{server.url}/b.tif", 0, 9, options=chosen))
        assert server.asked[2].at - server.asked[1].at >= 0.95


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0.0),
        ("7", 7.0),
        (" 7.5 ", 7.5),
        ("-3", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:01:40", 90.0),
        ("Thu, 99 Jan 1970 00:01:40 GMT", 0.0),
    ],
)
def test_forms_of_retry_after(text: str | None, seconds: float) -> None:
    assert parse_retry_after(text, 10.0) == seconds
