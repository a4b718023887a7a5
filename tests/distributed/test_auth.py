"""Secrets stay on the workers: not in collections, graphs, logs, errors or on the dashboard; and a job outlives its tokens."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import threading
import time
import traceback
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import cloudpickle
import dask
import pytest
import xarray as xr
from distributed import Client
from scripted import Answer, Asked, Scripted, part

import rasteret_dask as rd
from rasteret_dask.cluster.profiles import Local, open_profile
from rasteret_dask.errors import AccessError, RasteretError, TransientError
from rasteret_dask.model import RetryPolicy, StorageOptions
from rasteret_dask.read.ledger import read_ledger
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.source import read_range
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.write.zarr import write_zarr

SECRET = "Tr0ub4dor"
LIFE = 2.0
CUBE: dict[str, Any] = {
    "bands": ["red", "nir"],
    "groupby": "solar_day",
    "fill_value": 0,
    "chunks": {"time": 1, "y": 128, "x": 128},
}


class Guarded:
    """Files behind tokens of two seconds, one for each item's folder; documents are open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status: int | None = None
        self.minted = self.refused = 0
        self.life = LIFE
        self.busy = False
        """Whether every other request for a token is answered 429."""
        self.asked: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        """When a token was asked for, by whoever calls himself so, for what."""
        self.pause = 0.0
        self._lock = threading.Lock()
        self.server = Scripted(self.answer)

    def answer(self, asked: Asked, number: int) -> Answer:
        parts = urlsplit(asked.target)
        if parts.path.startswith("/token/"):
            who = asked.headers.get("Ocp-Apim-Subscription-Key", "")
            with self._lock:
                times = self.asked[who, parts.path]
                times.append(time.time())
                if self.busy and len(times) % 2:
                    return Answer(429, headers={"Retry-After": "0.05"})
                self.minted += 1
            end = time.time() + self.life
            expiry = datetime.fromtimestamp(end, UTC).isoformat()
            body = {"msft:expiry": expiry, "token": f"sig={SECRET}-{end!r}"}
            return Answer(200, json.dumps(body).encode())
        path = self.folder / unquote(parts.path).lstrip("/")
        if not path.is_file():
            return Answer(404)
        if path.suffix != ".tif":
            return Answer(200, path.read_bytes())
        end = parse_qs(parts.query).get("sig", [""])[0].rpartition("-")[2]
        if not end or float(end) < time.time():
            with self._lock:
                self.refused += 1
            return Answer(403, body=asked.target.encode())
        if self.status is not None:
            return Answer(self.status, body=asked.target.encode())
        time.sleep(self.pause)
        return part(asked, path.read_bytes())

    @property
    def options(self) -> StorageOptions:
        where = {"endpoint": f"{self.server.url}/token", "hosts": self.server.host}
        retry = RetryPolicy(attempts=2, base=0.01, cap=0.02)
        return StorageOptions(retry=retry, auth="planetary-computer", auth_options=where)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_catalog(folder, size=256, blocksize=128)
    made = Guarded(folder)
    with made.server:
        yield made


@pytest.fixture(scope="module")
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def collection(guarded: Guarded, log: io.StringIO, workspace: Path) -> rd.Collection:
    return rd.build_from_stac(
        static_catalog=f"{guarded.server.url}/catalog.json",
        name="demo",
        bands=["red", "nir"],
        workspace_dir=workspace,
        storage=guarded.options,
    )


@pytest.fixture(scope="module")
def client(collection: rd.Collection) -> Iterator[Client]:
    with open_profile(Local(kind="local", workers=2, threads=1)) as found:
        assert found is not None
        yield found


def told(error: BaseException) -> str:
    """All that anybody may get to see of an error."""
    lines = traceback.format_exception(error, chain=True)
    return "".join(lines) + repr(error) + str(error) + str(pickle.dumps(error))


def dashboard(client: Client) -> str:
    base = client.dashboard_link.rpartition("/")[0]
    pages = ["/info/main/workers.html", "/info/main/exceptions.html", "/info/main/logs.html"]
    pages += [f"/info/logs/{worker}.html" for worker in map(_quoted, _workers(client))]
    text = ""
    for page in pages:
        with urllib.request.urlopen(base + page, timeout=10) as answer:
            text += answer.read().decode()
    return text


def _workers(client: Client) -> list[str]:
    return list(client.scheduler_info(n_workers=-1)["workers"])


def _quoted(address: str) -> str:
    return urllib.request.quote(address, safe="")


def logs_of(client: Client) -> str:
    everything = [client.get_worker_logs(), client.get_worker_logs(nanny=True)]
    return str(everything) + str(client.get_scheduler_logs()) + str(client.get_events())


def test_a_job_that_is_longer_than_its_tokens_live(
    guarded: Guarded, collection: rd.Collection, client: Client
) -> None:
    calm = collection.get_xarray(**CUBE, storage=guarded.options).compute(scheduler="threads")
    client.run(call_itself_by_its_number)
    guarded.minted, guarded.refused, guarded.pause = 0, 0, 0.15
    guarded.asked.clear()
    begin = time.monotonic()
    found: list[xr.Dataset] = []
    while time.monotonic() - begin < 2.5 * LIFE:
        found.append(collection.get_xarray(**CUBE, storage=guarded.options).compute())
        client.run(lambda: None)
    guarded.pause = 0.0
    assert all(cube.identical(calm) for cube in found)
    assert guarded.minted >= 2 * 2  # two workers, twice over at least
    assert guarded.refused == 0
    lives = [b - a for times in guarded.asked.values() for a, b in pairwise(times)]
    assert min(lives) >= 0.8 * LIFE  # asked for again in the last fifth of a token's life


def test_each_process_asks_once_for_each_container(
    guarded: Guarded, collection: rd.Collection, tmp_path: Path
) -> None:
    """A build and a cube, by workers of two threads, while the endpoint refuses the first request of each two."""
    calm = collection.get_xarray(**CUBE, storage=guarded.options).compute(scheduler="threads")
    containers = {path.parent.name for path in guarded.folder.glob("*/*.tif")}
    with open_profile(Local(kind="local", workers=3, threads=2)) as client:
        assert client is not None
        client.run(call_itself_by_its_number)
        guarded.asked.clear()
        guarded.life, guarded.busy = 3600.0, True
        try:
            built = rd.build_from_stac(
                static_catalog=f"{guarded.server.url}/catalog.json",
                name="demo",
                bands=["red", "nir"],
                workspace_dir=tmp_path,
                storage=guarded.options,
            )
            cube = built.get_xarray(**CUBE, storage=guarded.options)
            assert all(cube.compute().identical(calm) for _ in range(3))
        finally:
            guarded.life, guarded.busy = LIFE, False
    asked = {pair: len(times) for pair, times in guarded.asked.items()}
    assert len({who for who, _ in asked}) > 1
    assert {Path(what).name for _, what in asked} == containers
    assert set(asked.values()) == {2}  # one that was refused, and one token
    assert sum(asked.values()) <= 2 * 3 * len(containers)


def test_neither_files_nor_graphs_hold_a_secret(
    guarded: Guarded, collection: rd.Collection, workspace: Path
) -> None:
    found = collection.get_xarray(**CUBE, storage=guarded.options)
    graph = found.__dask_graph__()
    assert SECRET.encode() not in cloudpickle.dumps(graph)
    assert SECRET.encode() not in pickle.dumps({k: str(v) for k, v in dict(graph).items()})
    assert guarded.server.host.encode() in cloudpickle.dumps(graph)
    files = [p for p in workspace.rglob("*") if p.is_file()]
    assert len(files) > 3
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_neither_ledgers_nor_records_hold_a_secret(
    guarded: Guarded, collection: rd.Collection, tmp_path: Path
) -> None:
    ledger = str(tmp_path / "ledger")
    how = {**CUBE, "storage": guarded.options, "on_error": "record", "ledger": ledger}
    guarded.status = 500
    cube = collection.get_xarray(**how)
    try:
        write_zarr(cube, tmp_path / "out.zarr")
    finally:
        guarded.status = None
    assert len(read_ledger(ledger, cube.attrs["rasteret_run"])) > 8
    assert rd.repair(cube.attrs["rasteret_record"], tmp_path / "out.zarr").failures == 0
    calm = collection.get_xarray(**CUBE, storage=guarded.options).compute()
    mended = xr.open_zarr(tmp_path / "out.zarr", mask_and_scale=False)
    assert mended.red.values.tobytes() == calm.red.values.tobytes()
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} >= {".json", ".parquet"}
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(("status", "kind"), [(403, AccessError), (500, TransientError)])
@pytest.mark.parametrize("where", ["threads", "cluster"])
def test_errors_and_logs_hold_no_secret(
    guarded: Guarded,
    collection: rd.Collection,
    client: Client,
    log: io.StringIO,
    status: int,
    kind: type[RasteretError],
    where: str,
) -> None:
    guarded.status = status
    try:
        cube = collection.get_xarray(**CUBE, storage=guarded.options)
        with pytest.raises(kind) as caught, dask.config.set(_scheduler(where)):
            cube.compute()
    finally:
        guarded.status = None
    text = told(caught.value)
    assert str(status) in text
    assert SECRET not in text
    assert "sig=" not in text
    seen = log.getvalue() + (logs_of(client) + dashboard(client) if where == "cluster" else "")
    assert SECRET not in seen
    if where == "cluster":
        assert len(seen) > 1000


def _scheduler(where: str) -> dict[str, str]:
    return {"scheduler": "threads"} if where == "threads" else {}


def test_what_is_not_public_is_refused_without_a_recipe(
    collection: rd.Collection, client: Client
) -> None:
    with pytest.raises(AccessError, match="refuse"):
        collection.get_xarray(**CUBE, storage=StorageOptions()).compute()


def test_a_token_of_the_workers_own_environment(
    guarded: Guarded, collection: rd.Collection, client: Client
) -> None:
    """The client has none and needs none."""
    client.run(set_variable, "LAB_KEY", SECRET)
    assert "LAB_KEY" not in os.environ

    def answer(asked: Asked, number: int) -> Answer:
        if asked.headers.get("Authorization") != f"Bearer {SECRET}":
            return Answer(401)
        return part(asked, bytes(100))

    with Scripted(answer) as server:
        options = StorageOptions(
            auth="bearer", auth_options={"env": "LAB_KEY", "hosts": server.host}
        )
        assert client.submit(read_there, f"{server.url}/a", options, pure=False).result() == 20
        with pytest.raises(AccessError, match="LAB_KEY"):
            read_there(f"{server.url}/a", options)


def call_itself_by_its_number() -> None:
    """What a process sends along when it asks for a token."""
    os.environ["PC_SDK_SUBSCRIPTION_KEY"] = str(os.getpid())


def set_variable(name: str, value: str) -> None:
    os.environ[name] = value


def read_there(url: str, options: StorageOptions) -> int:
    return len(run(read_range(url, 0, 20, options=options)).data)
