"""Object stores on this machine, for workspaces: moto's S3, and azurite where it is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import adlfs
import s3fs

from rasteret_dask.model import StorageOptions
from rasteret_dask.testing.server import ServerError

# The account that every azurite knows; it is in its documentation.
_KEY: Final = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_AZURITE: Final = "azurite-blob"


@dataclass(frozen=True, slots=True)
class Store:
    """Where a workspace is, and how it is reached.

    Parameters
    ----------
    url : str
        Of the workspace.
    storage : StorageOptions
    """

    url: str
    storage: StorageOptions = field(default_factory=StorageOptions)


@contextmanager
def s3() -> Iterator[Store]:
    """An empty bucket; its credentials are in the environment for as long as the block lasts."""
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    program = Path(__file__).with_name("_moto.py")
    options = {"endpoint": endpoint, "region": "us-east-1"}
    said = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    with _running([sys.executable, str(program), str(port)], port), _environment(said):
        fs = s3fs.S3FileSystem(endpoint_url=endpoint, client_kwargs={"region_name": "us-east-1"})
        fs.call_s3("create_bucket", Bucket="bucket")
        yield Store(
            "s3://bucket/ws",
            StorageOptions(options={**options, "virtual_hosted_style_request": "false"}),
        )


def has_azurite() -> bool:
    """Whether ``azurite-blob`` can be started (``npm install -g azurite``)."""
    return shutil.which(_AZURITE) is not None


@contextmanager
def azure(folder: Path) -> Iterator[Store]:
    """An empty container, likewise.

    Parameters
    ----------
    folder : Path
        For the server's files; its log of what it was asked is ``access.log`` there.
    """
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
    command = [_AZURITE, "--location", str(folder), "--blobHost", "127.0.0.1"]
    command += ["--blobPort", str(port), "--skipApiVersionCheck"]
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_KEY};"
        f"BlobEndpoint={endpoint};"
    )
    said = {
        "AZURE_STORAGE_CONNECTION_STRING": connection,
        "AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1",
        "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
    }
    with (
        (folder / "access.log").open("wb") as log,
        _running(command, port, log),
        _environment(said),
    ):
        adlfs.AzureBlobFileSystem(connection_string=connection).mkdir("container")
        yield Store("az://container/ws", StorageOptions(options={"endpoint": endpoint}))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _environment(said: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _running(command: list[str], port: int, log: IO[bytes] | None = None) -> Iterator[None]:
    """A server, once it answers; killed in the end."""
    out = subprocess.DEVNULL if log is None else log
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while True:
            if process.poll() is not None or time.monotonic() > end:
                raise ServerError(f"{Path(command[0]).name} does not answer")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()
