"""Ranges over HTTP and elsewhere: right bytes, counted, retried, given up without a trace."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import fsspec
import numpy as np
import pytest
from budget import settles
from fsspec.implementations.memory import MemoryFileSystem

from rasteret_dask import errors
from rasteret_dask.ingest.headers import fetch_headers
from rasteret_dask.model import RatePolicy, RetryPolicy, StorageOptions
from rasteret_dask.storage import counters
from rasteret_dask.storage.fetch import Fetch
from rasteret_dask.storage.limiter import LARGE
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.source import RangeRequest, read_range
from rasteret_dask.testing.server import Fault, RangeServer

SIZE = 200_000
BYTES = np.random.default_rng(0).bytes(SIZE)
NAMES = (
    "plain.bin",
    "with space.bin",
    "100%.bin",
    "a%20b.bin",
    "ü~é.bin",
    "a+b,c;d=e.bin",
    "a#b?c.bin",
)
QUICK = RetryPolicy(attempts=4, base=0.001, cap=0.002, stall=5.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    for name in NAMES:
        (path / name).write_bytes(BYTES)
    (path / "large.bin").write_bytes(bytes(LARGE + 100))
    return path


def collect(fetch: Fetch) -> dict[int, bytes]:
    out = {}
    for number, data in fetch:
        out[number] = bytes(data)
        fetch.done(number)
    fetch.close()
    return out


@pytest.mark.parametrize("name", NAMES)
def test_names_of_all_kinds(server: RangeServer, name: str) -> None:
    found = run(read_range(server.url_of(name), 1000, 3000))
    assert bytes(found.data) == BYTES[1000:3000]
    assert found.size == SIZE
    assert found.etag


def test_a_query_goes_through_fsspec(server: RangeServer) -> None:
    found = run(read_range(server.url_of("plain.bin") + "?sig=SECRET", 5, 95))
    assert bytes(found.data) == BYTES[5:95]
    with pytest.raises(errors.NotFoundError) as caught:
        run(read_range(server.url_of("nothing.bin") + "?sig=SECRET", 0, 10))
    assert "SECRET" not in repr(caught.value) + str(caught.value)


def test_a_range_past_the_end_comes_short(server: RangeServer, folder: Path) -> None:
    for url in (server.url_of("plain.bin"), str(folder / "plain.bin")):
        found = run(read_range(url, SIZE - 10, SIZE + 100))
        assert bytes(found.data) == BYTES[-10:]


@pytest.mark.parametrize("kind", ["path", "uri", "memory", "http"])
def test_every_kind_of_url(server: RangeServer, folder: Path, kind: str) -> None:
    name = "with space.bin"
    fsspec.filesystem("memory").pipe_file(f"/{name}", BYTES)
    url = {
        "path": str(folder / name),
        "uri": f"file://{quote(str(folder / name))}",
        "memory": f"memory://{name}",
        "http": server.url_of(name),
    }[kind]
    requests = [RangeRequest(url, k * 1000, k * 1000 + 500) for k in range(20)]
    assert collect(Fetch(requests)) == {k: BYTES[k * 1000 : k * 1000 + 500] for k in range(20)}


def test_requests_and_bytes_are_counted_on_both_sides(server: RangeServer) -> None:
    before = counters.snapshot()
    requests = [RangeRequest(server.url_of("plain.bin"), k * 100, k * 100 + 50) for k in range(40)]
    collect(Fetch(requests))
    spent = counters.snapshot() - before
    seen = server.counters()
    assert (spent.requests, spent.bytes, spent.retries) == (40, 2000, 0)
    assert (seen.requests, seen.bytes) == (40, 2000)


def test_ranges_are_handed_over_as_they_arrive(server: RangeServer, folder: Path) -> None:
    # The first range waits for a retry of at least a while; the others do not wait for it.
    server.configure(faults=[Fault("status", match="with space.bin", first=3)])
    slow = StorageOptions(retry=RetryPolicy(attempts=5, base=0.05, cap=0.1))
    urls = [server.url_of("with space.bin")] + [server.url_of("plain.bin")] * 3
    fetch = Fetch([RangeRequest(u, k * 10, k * 10 + 10) for k, u in enumerate(urls)], slow)
    order = []
    for number, _ in fetch:
        order.append(number)
        fetch.done(number)
    assert order[-1] == 0
    assert sorted(order) == [0, 1, 2, 3]


def test_many_are_under_way_at_once_but_no_more_than_allowed(server: RangeServer) -> None:
    server.configure(latency=0.05)
    options = StorageOptions(rate=RatePolicy(in_flight=8))
    requests = [RangeRequest(server.url_of("plain.bin"), k, k + 1) for k in range(24)]
    collect(Fetch(requests, options))
    assert 4 <= server.counters().peak_in_flight <= 8


@pytest.mark.parametrize(
    ("size", "allowed", "expected"),
    [(LARGE, 128, 80), (LARGE + 1, 128, 64), (LARGE + 1, 150, 75), (LARGE + 1, 8, 8)],
)
def test_of_large_ranges_fewer_are_under_way(
    server: RangeServer, size: int, allowed: int, expected: int
) -> None:
    server.configure(latency=1.0 if expected > 8 else 0.1)
    options = StorageOptions(rate=RatePolicy(in_flight=allowed, budget=2**30))
    requests = [RangeRequest(server.url_of("large.bin"), k, k + size) for k in range(80)]
    collect(Fetch(requests, options))
    assert server.counters().peak_in_flight == expected


def test_503s_are_retried_and_counted(server: RangeServer) -> None:
    server.configure(faults=[Fault("status", status=503, first=2)])
    before = counters.snapshot()
    requests = [RangeRequest(server.url_of("plain.bin"), k * 10, k * 10 + 5) for k in range(10)]
    found = collect(Fetch(requests, StorageOptions(retry=QUICK)))
    assert found == {k: BYTES[k * 10 : k * 10 + 5] for k in range(10)}
    spent = counters.snapshot() - before
    assert (spent.requests, spent.retries, spent.bytes) == (30, 20, 50)
    assert server.counters().requests == 30


@pytest.mark.parametrize("kind", ["reset", "truncate"])
def test_broken_connections_are_retried(server: RangeServer, kind: str) -> None:
    server.configure(faults=[Fault(kind, first=2)])
    found = run(
        read_range(server.url_of("plain.bin"), 0, 5000, options=StorageOptions(retry=QUICK))
    )
    assert bytes(found.data) == BYTES[:5000]


def test_a_silent_connection_is_given_up(server: RangeServer) -> None:
    server.configure(faults=[Fault("stall", first=1)])
    options = StorageOptions(retry=RetryPolicy(attempts=2, base=0.001, stall=0.3))
    found = run(read_range(server.url_of("plain.bin"), 0, 5000, options=options))
    assert bytes(found.data) == BYTES[:5000]


def test_retries_come_to_an_end(server: RangeServer) -> None:
    server.configure(faults=[Fault("status", status=503)])
    with pytest.raises(errors.TransientError, match="503") as caught:
        run(read_range(server.url_of("plain.bin"), 0, 10, options=StorageOptions(retry=QUICK)))
    assert caught.value.url == server.url_of("plain.bin")
    assert server.counters().requests == QUICK.attempts


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, errors.NotFoundError), (403, errors.AccessError), (400, errors.SourceError)],
)
def test_refusals_are_not_repeated(server: RangeServer, status: int, kind: type[Exception]) -> None:
    server.configure(faults=[Fault("status", status=status)])
    with pytest.raises(kind):
        run(read_range(server.url_of("plain.bin"), 0, 10, options=StorageOptions(retry=QUICK)))
    assert server.counters().requests == 1


@pytest.mark.parametrize("query", ["", "?a=1"])
def test_a_server_that_ignores_range(server: RangeServer, query: str) -> None:
    server.configure(faults=[Fault("ignore_range")])
    with pytest.raises(errors.RangeIgnoredError, match="whole file") as caught:
        run(
            read_range(
                server.url_of("plain.bin") + query, 0, 10, options=StorageOptions(retry=QUICK)
            )
        )
    assert caught.value.url == server.url_of("plain.bin")
    assert server.counters().requests == 1


def test_missing_local_files(tmp_path: Path) -> None:
    with pytest.raises(errors.NotFoundError):
        run(read_range(str(tmp_path / "nothing"), 0, 1))
    with pytest.raises(errors.NotFoundError):
        list(Fetch([RangeRequest(str(tmp_path / "nothing"), 0, 1)]))


@pytest.mark.parametrize("local", [True, False])
def test_another_version_and_a_cut_off_file(server: RangeServer, folder: Path, local: bool) -> None:
    url = str(folder / "plain.bin") if local else server.url_of("plain.bin")
    etag = run(read_range(url, 0, 1)).etag
    assert collect(Fetch([RangeRequest(url, 0, 4, etag)])) == {0: BYTES[:4]}
    with pytest.raises(errors.StaleIndexError) as caught:
        collect(Fetch([RangeRequest(url, 0, 4, "another")]))
    assert caught.value.url == url
    with pytest.raises(errors.SourceError, match="ends before byte") as cut:
        collect(Fetch([RangeRequest(url, SIZE - 5, SIZE + 5, etag)]))
    assert cut.value.range == (SIZE - 5, SIZE + 5)


def test_a_budget_smaller_than_a_range_lets_them_through_one_by_one(server: RangeServer) -> None:
    options = StorageOptions(rate=RatePolicy(budget=1000))
    server.configure(latency=0.005)
    requests = [RangeRequest(server.url_of("plain.bin"), k, k + 5000) for k in range(8)]
    assert collect(Fetch(requests, options)) == {k: BYTES[k : k + 5000] for k in range(8)}
    assert server.counters().peak_in_flight == 1
    assert settles(options)


@pytest.mark.parametrize("bad", [0, 7, 19])
def test_an_error_gives_up_the_rest_and_returns_the_budget(server: RangeServer, bad: int) -> None:
    options = StorageOptions(rate=RatePolicy(budget=70_000 + bad, in_flight=4), retry=QUICK)
    server.configure(latency=0.01)
    good = server.url_of("plain.bin")
    urls = [server.url_of("missing.bin") if k == bad else good for k in range(60)]
    for _ in range(3):
        fetch = Fetch(
            [RangeRequest(u, k * 100, k * 100 + 1000) for k, u in enumerate(urls)], options
        )
        with pytest.raises(errors.NotFoundError):
            collect(fetch)
        fetch.close()
    assert settles(options)
    requests = [RangeRequest(good, k * 100, k * 100 + 1000) for k in range(20)]
    assert collect(Fetch(requests, options)) == {
        k: BYTES[k * 100 : k * 100 + 1000] for k in range(20)
    }


def test_whoever_stops_half_way_returns_the_budget(server: RangeServer) -> None:
    options = StorageOptions(rate=RatePolicy(budget=70_101))
    for ahead in (False, True):
        for stop in (0, 1, 3):
            requests = [RangeRequest(server.url_of("plain.bin"), k, k + 1000) for k in range(30)]
            fetch = Fetch(requests, options, ahead=ahead)
            for n, (number, _) in enumerate(fetch, start=1):
                if n > stop:
                    break
                fetch.done(number)
            fetch.close()
    assert settles(options)
    abandoned = Fetch([RangeRequest(server.url_of("plain.bin"), 0, 2500)], options)
    del abandoned
    assert settles(options)


def test_many_threads_share_one_small_budget(server: RangeServer) -> None:
    options = StorageOptions(rate=RatePolicy(budget=80_002))
    url = server.url_of("plain.bin")

    def one(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        starts = rng.integers(0, SIZE - 9000, 15).tolist()
        sizes = rng.integers(1, 9000, 15).tolist()
        found = collect(
            Fetch([RangeRequest(url, a, a + n) for a, n in zip(starts, sizes)], options)
        )
        return found == {k: BYTES[a : a + n] for k, (a, n) in enumerate(zip(starts, sizes))}

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(one, range(24)))
    assert settles(options)


def test_the_loop_serves_every_thread() -> None:
    seen = set()

    async def where() -> int:
        return threading.get_ident()

    def one() -> None:
        seen.add(run(where()))

    threads = [threading.Thread(target=one) for _ in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_idle_connections_keep_nothing_of_what_they_brought(server: RangeServer) -> None:
    url, count = server.url_of("plain.bin"), 12
    server.configure(latency=0.02)  # so that each has a connection of its own
    requests = [RangeRequest(url, k, k + SIZE - count) for k in range(count)]
    collect(Fetch(requests))
    gc.collect()
    tracemalloc.start()
    try:
        collect(Fetch(requests))
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > count * (SIZE - count)
    assert held < 2 * SIZE


@pytest.mark.parametrize("kind", ["path", "http"])
def test_several_threads_take_each_range_once(server: RangeServer, folder: Path, kind: str) -> None:
    url = str(folder / "plain.bin") if kind == "path" else server.url_of("plain.bin")
    fetch = Fetch([RangeRequest(url, k * 10, k * 10 + 10) for k in range(200)])
    fetch.begin()
    found: list[tuple[int, bytes]] = []

    def take(wait: bool) -> None:
        # Those that do not wait take what there is; the one that waits ends when nothing is left.
        while len(found) < 200:
            got = fetch.take(wait=wait)
            if got is not None:
                found.append((got[0], bytes(got[1])))
            elif wait:
                return

    threads = [
        threading.Thread(target=take, args=(wait,), daemon=True) for wait in (True, False, False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(found) == [(k, BYTES[k * 10 : k * 10 + 10]) for k in range(200)]
    assert fetch.take() is None


@pytest.mark.parametrize("kind", ["path", "http"])
def test_more_can_be_asked_for_while_others_come(
    server: RangeServer, folder: Path, kind: str
) -> None:
    url = str(folder / "plain.bin") if kind == "path" else server.url_of("plain.bin")
    data = (folder / "plain.bin").read_bytes()
    # So little that nothing more comes before what is held is given back.
    options = StorageOptions(rate=RatePolicy(budget=1))
    fetch = Fetch([RangeRequest(url, 0, 10)], options)
    found = {}
    while (got := fetch.take()) is not None:
        number, part = got
        found[number] = bytes(part)
        fetch.done(number)
        if number < 5:
            fetch.add(RangeRequest(url, 0, 20 * (number + 1)))
    assert found == {0: data[:10]} | {k: data[: 20 * k] for k in range(1, 6)}
    fetch.close()


class AzureError(Exception):
    """As Azure's are: of no tree that anybody knows."""

    def __init__(self, status: int | None) -> None:
        super().__init__("https://a.blob/c?sig=SECRET")
        self.status_code = status


class Far(MemoryFileSystem):
    """A store that answers with errors of its own, as often as is said."""

    protocol = "far"
    cachable = False
    failures: ClassVar[list[int | None]] = []

    def cat_file(self, path: str, **how: Any) -> bytes:
        if Far.failures:
            raise AzureError(Far.failures.pop())
        return BYTES[how["start"] : how["end"]]


@pytest.mark.parametrize(
    ("failures", "error"),
    [
        ([503, 503], None),
        ([None], None),
        ([403], errors.AccessError),
        ([404], errors.NotFoundError),
        ([503] * 9, errors.TransientError),
    ],
)
def test_errors_of_a_librarys_own(
    failures: list[int | None], error: type[Exception] | None
) -> None:
    fsspec.register_implementation("far", Far, clobber=True)
    Far.failures = list(failures)
    options = StorageOptions(retry=QUICK)
    if error is None:
        found = run(read_range("far://b/x", 10, 90, options=options))
        assert bytes(found.data) == BYTES[10:90]
        assert not Far.failures
        return
    with pytest.raises(error) as caught:
        run(read_range("far://b/x", 10, 90, options=options))
    assert "SECRET" not in repr(caught.value) + str(caught.value)
    # One file's refusal is one file's.
    Far.failures = list(failures)
    (header,) = run(fetch_headers(["far://b/x"], options=options))
    assert isinstance(header, error)
    Far.failures = []
