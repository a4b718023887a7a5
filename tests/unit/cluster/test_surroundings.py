"""Proxies, authorities and regions of profiles; a cluster that is lost."""

from __future__ import annotations

import hashlib
import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster
from handmade import Scene, make_table

import rasteret_dask as rd
from rasteret_dask.cluster import profiles
from rasteret_dask.cluster.surroundings import Network
from rasteret_dask.errors import (
    CollectionError,
    ConfigError,
    RasteretWarning,
    RunInterruptedError,
)
from rasteret_dask.index.place import Place
from rasteret_dask.ingest.bag import compute
from rasteret_dask.ingest.slices import Outcome, Recipe, Slice
from rasteret_dask.model import StorageOptions
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.regions import region_of, warn_elsewhere
from rasteret_dask.storage.source import read_range
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import write_authority

CONTENT = bytes(range(256)) * 1200


class Proxy(BaseHTTPRequestHandler):
    """Answers every range of every address, as a proxy does for http; itself the server for https."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        body = CONTENT[int(first) : int(last) + 1]
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Mon, 02 Jan 2023 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering(chain: Path | None = None) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.asked = []
    if chain is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def read_there(url: str, start: int, stop: int) -> bytes:
    return bytes(run(read_range(url, start, stop)).data)


def test_workers_go_through_the_profile_s_proxy() -> None:
    """Whatever the size: small and large ranges have clients of their own."""
    with answering() as proxy:
        address = f"http://127.0.0.1:{proxy.server_port}"
        profile = profiles.from_mapping(
            {
                "kind": "local",
                "workers": 1,
                "threads": 1,
                "network": {"proxy": address, "no_proxy": [".inside.example"]},
            }
        )
        with profiles.open_profile(profile) as client:
            assert client is not None
            url = "http://data.example/a.tif"
            for size in (100, 300_000):
                read = client.submit(read_there, url, 10, 10 + size).result()
                assert read == CONTENT[10 : 10 + size]
            told = client.submit(os.environ.get, "NO_PROXY").result()
        assert "HTTP_PROXY" not in os.environ
    assert set(proxy.asked) == {"http://data.example/a.tif"}
    assert told == ".inside.example,localhost,127.0.0.1,::1"


def test_workers_of_an_address_are_told_too_and_those_that_join_later() -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:  # fmt: skip
        profile = profiles.from_mapping(
            {
                "kind": "address",
                "address": cluster.scheduler_address,
                "network": {"ca_file": "/etc/lab.pem"},
            }
        )
        with profiles.open_profile(profile) as client:
            assert client is not None
            cluster.scale(2)
            client.wait_for_workers(2, timeout=120)
            told = client.run(os.environ.get, "SSL_CERT_FILE")
    assert list(told.values()) == ["/etc/lab.pem"] * 2


def test_a_password_does_not_travel() -> None:
    with pytest.raises(ConfigError, match="a password in a profile"):
        profiles.from_mapping({"kind": "threads", "network": {"proxy": "http://me:pw@p:3128"}})
    assert Network(ca_file="/x").variables()["REQUESTS_CA_BUNDLE"] == "/x"


# --- one's own authority --------------------------------------------------------------------------
def certificate(folder: Path) -> tuple[Path, Path]:
    """An authority, and a server's certificate of it with its key."""
    authority, own, key = write_authority(folder)
    (folder / "chain.pem").write_bytes(own.read_bytes() + key.read_bytes())
    return authority, folder / "chain.pem"


def test_workers_trust_the_profile_s_authority(tmp_path: Path) -> None:
    authority, chain = certificate(tmp_path)
    profile = profiles.from_mapping(
        {
            "kind": "local",
            "workers": 1,
            "threads": 1,
            "network": {"ca_file": str(authority)},
        }
    )
    with answering(chain) as server, profiles.open_profile(profile) as client:
        assert client is not None
        url = f"https://127.0.0.1:{server.server_port}/a.tif"
        for size in (100, 300_000):
            assert client.submit(read_there, url, 0, size).result() == CONTENT[:size]


class Tunnel(socketserver.ThreadingTCPServer):
    """A proxy for https: it connects, and passes on what it cannot read."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Passage)
        self.asked: list[str] = []


class Passage(socketserver.StreamRequestHandler):
    """One tunnel; every name leads to this machine."""

    def handle(self) -> None:
        method, target, _ = self.rfile.readline().decode().split(" ")
        while self.rfile.readline().strip():
            pass
        assert method == "CONNECT"
        self.server.asked.append(target)  # type: ignore[attr-defined]
        port = int(target.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as other:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=pour, args=(other, self.connection))
            back.start()
            pour(self.connection, other)
            back.join()


def pour(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


THROUGH = """
import hashlib, sys
from rasteret_dask.storage.loop import run
from rasteret_dask.storage.source import read_range
for size in (100, 300_000):
    print(hashlib.sha256(run(read_range(sys.argv[1], 0, size)).data).hexdigest())
"""


@pytest.mark.parametrize("direct", [False, True])
def test_https_goes_through_a_tunnel(direct: bool, tmp_path: Path) -> None:
    """Small and large ranges; but not to hosts that are reached directly."""
    authority, chain = certificate(tmp_path)
    tunnel = Tunnel()
    thread = threading.Thread(target=tunnel.serve_forever, args=(0.01,))
    thread.start()
    try:
        with answering(chain) as server:
            said = Network(
                proxy=f"http://127.0.0.1:{tunnel.server_address[1]}", ca_file=str(authority)
            ).variables()
            said |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1" if direct else "elsewhere")
            url = f"https://127.0.0.1:{server.server_port}/a.tif"
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", THROUGH, url],
                env={**os.environ, **said},
                capture_output=True,
                text=True,
                check=False,
            )
    finally:
        tunnel.shutdown()
        thread.join()
        tunnel.server_close()
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stdout.split() == [
        hashlib.sha256(CONTENT[:size]).hexdigest() for size in (100, 300_000)
    ]
    assert set(tunnel.asked) == (set() if direct else {f"127.0.0.1:{server.server_port}"})
    assert len(tunnel.asked) == (0 if direct else 2)  # each has a client of its own


# --- regions --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("url", "options", "region"),
    [
        ("s3://b/k.tif", {"region": "eu-central-1"}, "eu-central-1"),
        ("s3://b/k.tif", {}, None),
        ("https://b.s3.us-west-2.amazonaws.com/k.tif", {}, "us-west-2"),
        ("https://s3.dualstack.us-west-2.amazonaws.com/b/k.tif", {}, "us-west-2"),
        ("https://e84.s3-us-gov-west-1.amazonaws.com/k", {"region": "x"}, "us-gov-west-1"),
        ("https://example.org/s3.us-west-2.amazonaws.com/k.tif", {"region": "x"}, None),
        ("/data/k.tif", {"region": "x"}, None),
    ],
)
def test_where_a_file_lies(url: str, options: dict[str, str], region: str | None) -> None:
    assert region_of(url, StorageOptions(options=options)) == region


def test_data_of_another_region_gives_a_warning() -> None:
    url = "https://b.s3.us-west-2.amazonaws.com/k.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_elsewhere(url, StorageOptions())  # nobody says where the cluster is
        with profiles.open_profile(
            profiles.from_mapping({"kind": "threads", "region": "us-west-2"})
        ):
            warn_elsewhere(url, StorageOptions())
    there = profiles.from_mapping({"kind": "threads", "region": "eu-central-1"})
    with (
        profiles.open_profile(there),
        pytest.warns(RasteretWarning, match="lies in us-west-2 and the cluster in eu-central-1"),
    ):
        warn_elsewhere(url, StorageOptions())
    assert dask.config.get("rasteret-dask.region", None) is None


def test_a_cube_of_another_region_says_so(tmp_path: Path) -> None:
    pixels = np.ones((64, 64), "uint16")
    corner = (10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)
    make_cog(tmp_path / "a.tif", pixels, transform=corner, crs="EPSG:32633", nodata=0, blocksize=32)
    table = make_table([Scene("s", {"red": tmp_path / "a.tif"})])
    (row,) = table.to_pylist()
    row["assets"]["red"]["href"] = "https://b.s3.us-west-2.amazonaws.com/a.tif"
    far = rd.as_collection(pa.Table.from_pylist([row], schema=table.schema))
    with (
        dask.config.set({"rasteret-dask.region": "eu-central-1"}),
        pytest.warns(RasteretWarning, match="lies in us-west-2"),
    ):
        far.get_xarray(bands=["red"])  # nothing is fetched yet


def test_a_build_from_another_region_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it reads, where the client knows the items."""
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "s",
        "geometry": None,
        "bbox": [15.0, 46.9, 15.01, 46.91],
        "properties": {"datetime": "2023-01-01T00:00:00Z"},
        "links": [],
        "assets": {
            "red": {"href": "http://b.s3.us-west-2.amazonaws.com/a.tif", "type": "image/tiff"}
        },
    }
    with answering() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        with (
            dask.config.set({"rasteret-dask.region": "eu-central-1"}),
            pytest.warns(RasteretWarning, match="lies in us-west-2") as told,
            pytest.raises(CollectionError, match="not one of 1 headers"),
        ):
            rd.build_from_items([item], name="far", workspace_dir=tmp_path)
    assert len(told) == 1
    assert proxy.asked


def searched(slices: list[Slice], recipe: Recipe) -> list[Outcome]:
    return [Outcome(one.key, region="us-west-2") for one in slices]


def test_what_workers_have_searched_in_another_region_says_so(tmp_path: Path) -> None:
    recipe = Recipe(Place(str(tmp_path)), (), {})
    with (
        dask.config.set({"rasteret-dask.region": "eu-central-1"}),
        pytest.warns(RasteretWarning, match="lies in us-west-2") as told,
    ):
        compute([Slice("a"), Slice("b")], recipe, searched)
    assert len(told) == 1


# --- lost -----------------------------------------------------------------------------------------
def test_a_lost_scheduler_is_an_error_that_says_how_to_go_on() -> None:
    cluster = LocalCluster(
        n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", processes=True
    )
    profile = profiles.from_mapping({"kind": "address", "address": cluster.scheduler_address})

    def work() -> None:
        with profiles.open_profile(profile) as client:
            assert isinstance(client, Client)
            waiting = client.submit(sum, [1])
            cluster.close()
            waiting.result(timeout=60)

    with pytest.raises(RunInterruptedError, match="scheduler was lost"):
        work()
