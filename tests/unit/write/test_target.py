"""Where results go: what a store's own library raises, and whose a new file is."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import dask
import dask.array as da
import fsspec
import pytest
import xarray as xr
from distributed.protocol.pickle import dumps
from fsspec.implementations.memory import MemoryFileSystem

from rasteret_dask import api
from rasteret_dask.errors import CollectionError, PipelineError
from rasteret_dask.index.place import Place
from rasteret_dask.runs import record
from rasteret_dask.runs.record import Record
from rasteret_dask.storage.ask import ask
from rasteret_dask.write import target
from rasteret_dask.write.patch import open_target
from rasteret_dask.write.regions import Journal, Layout
from rasteret_dask.write.target import put_bytes, resolve
from rasteret_dask.write.zarr import write_zarr

SIGNED = "https://a.blob.core.windows.net/c/x?sig=SECRET"


class AzureError(Exception):
    """As Azure's are: no OSError, and its text says what was asked for."""


class Ill(MemoryFileSystem):
    """A store that refuses what `refused` says."""

    protocol = "ill"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    refused: Callable[[str, str], bool] = staticmethod(lambda method, path: False)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("ill:/")))


def _refusing(name: str) -> Any:
    def method(self: Ill, path: str, *args: Any, **more: Any) -> Any:
        where = args[0] if name == "put_file" else path
        if Ill.refused(name, where):
            raise AzureError(SIGNED)
        return getattr(MemoryFileSystem, name)(self, path, *args, **more)

    return method


for _name in ("exists", "cat_file", "pipe_file", "put_file", "makedirs", "ls", "rm_file", "rm"):
    setattr(Ill, _name, _refusing(_name))


@pytest.fixture
def ill(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[str, str], bool]], None]]:
    """A store at ill://; call it with what it is to refuse: a method and a path."""
    fsspec.register_implementation("ill", Ill, clobber=True)

    def refuse(refused: Callable[[str, str], bool]) -> None:
        monkeypatch.setattr(Ill, "refused", staticmethod(refused))

    yield refuse
    Ill.store.clear()
    Ill.pseudo_dirs[:] = [""]


def check(error: OSError) -> None:
    """It says what it was, and carries nothing along."""
    assert error.strerror == "AzureError"
    assert error.__cause__ is error.__context__ is None
    assert b"SECRET" not in pickle.dumps(error) + dumps(error)


JOURNAL = Journal("ill://b/v.zarr.regions")
LAYOUT = Layout("d", 1)


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("put_file", lambda: put_bytes(b"x", "ill://b/x")),
        ("makedirs", lambda: JOURNAL.begin(LAYOUT)),
        ("pipe_file", lambda: JOURNAL.begin(LAYOUT)),
        ("pipe_file", lambda: JOURNAL.mark("v", (0, 0))),
        ("exists", lambda: JOURNAL.read(LAYOUT)),
        ("exists", lambda: JOURNAL.end()),
    ],
)
def test_what_a_store_raises_is_an_oserror(ill: Any, method: str, call: Any) -> None:
    ill(lambda name, _: name == method)
    with pytest.raises(OSError) as caught:
        call()
    check(caught.value)


PLACE = Place("ill://b/c", single_writer=True)


@pytest.mark.parametrize(
    ("method", "call", "kind", "said"),
    [
        ("put_file", lambda: Record("ill://b/r.json").save(), PipelineError, "written"),
        ("exists", lambda: record.load("ill://b/r.json"), PipelineError, "read"),
        ("cat_file", lambda: PLACE.read("x"), CollectionError, "read"),
        ("ls", lambda: PLACE.list("x"), CollectionError, "read"),
        ("ls", PLACE.folders, CollectionError, "read"),
        ("exists", lambda: PLACE.create("x", b"x"), CollectionError, "written"),
        ("pipe_file", lambda: PLACE.replace("x", b"x"), CollectionError, "written"),
        ("ls", lambda: api.load("ill://b/c"), CollectionError, "read"),
    ],
)
def test_records_and_collections_in_a_store_that_refuses(
    ill: Any, method: str, call: Any, kind: type[Exception], said: str
) -> None:
    PLACE.replace("x", b"x")
    ill(lambda name, _: name == method)
    with pytest.raises(kind, match=f"cannot be {said}: AzureError") as caught:
        call()
    assert b"SECRET" not in pickle.dumps(caught.value) + dumps(caught.value)


def test_a_store_of_arrays_that_refuses(ill: Any) -> None:
    dataset = xr.Dataset({"v": (("y", "x"), da.ones((4, 4), chunks=2))})
    with dask.config.set(scheduler="synchronous"):
        write_zarr(dataset, "ill://b/v.zarr")
    ill(lambda name, _: name == "cat_file")
    with pytest.raises(PipelineError, match=r"v\.zarr cannot be read: AzureError"):
        open_target("ill://b/v.zarr", dataset)


@pytest.mark.parametrize(
    "refused",
    [
        lambda name, path: name == "exists",
        lambda name, path: name == "pipe_file" and path.endswith("v/zarr.json"),
        lambda name, path: name == "pipe_file" and "/c/" in path,
        lambda name, path: name == "pipe_file" and path.endswith(".done"),
    ],
    ids=["what is there", "metadata", "a chunk", "a marker"],
)
def test_a_zarr_store_that_cannot_be_written(ill: Any, refused: Any) -> None:
    dataset = xr.Dataset({"v": (("y", "x"), da.ones((4, 4), chunks=2))})
    with dask.config.set(scheduler="synchronous"):
        ill(refused)
        with pytest.raises(OSError) as caught:
            write_zarr(dataset, "ill://b/v.zarr")
        check(caught.value)
        ill(lambda *_: False)
        write_zarr(dataset, "ill://b/v.zarr", resume=True)
    assert (xr.open_zarr("ill://b/v.zarr").v.values == 1).all()


@pytest.mark.parametrize("error", [OSError(28, "full"), PipelineError("x"), MemoryError()])
def test_what_is_known_comes_through(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        ask(fail)
    assert caught.value is error
    assert ask(sorted, [2, 1], reverse=True) == [2, 1]


def test_what_is_no_method_comes_through(ill: Any) -> None:
    fs, path = resolve("ill://b/x")
    assert (fs.protocol, path) == ("ill", "/b/x")
    assert not fs.exists(path)
    with pytest.raises(AttributeError):
        fs.no_such_thing


# --- the umask -----------------------------------------------------------------------------------
@pytest.fixture
def private() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("private")
@pytest.mark.parametrize("proc", [True, False])
def test_files_have_the_mode_of_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proc: bool
) -> None:
    if not proc:
        monkeypatch.setattr(target, "_STATUS", tmp_path / "none")
    put_bytes(b"x", tmp_path / "a")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    assert os.umask(0o077) == 0o077


@pytest.mark.parametrize("proc", [True, False])
def test_threads_do_not_take_each_others_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proc: bool
) -> None:
    """The umask is the process's: the second to look would see, and put back, what the first has set to look."""
    current = [0o027]

    def umask(mask: int) -> int:
        before, current[0] = current[0], mask
        time.sleep(0.002)
        return before

    if not proc or not target._STATUS.exists():
        monkeypatch.setattr(target, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(os, "umask", umask)
    threads = [threading.Thread(target=put_bytes, args=(b"x", tmp_path / str(k))) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert current == [0o027]
