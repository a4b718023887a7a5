"""Where results go: any URL that fsspec knows; a file appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem


def resolve(url: str | os.PathLike[str]) -> tuple[Any, str]:
    """The file system of a URL, and the path within it."""
    fs, path = url_to_fs(os.fspath(url))
    return fs, str(path)


@contextmanager
def scratch_file(suffix: str) -> Iterator[Path]:
    """A path for a file on local disk that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rasteret-dask-") as folder:
        yield Path(folder) / f"result{suffix}"


def put_file(source: Path, url: str | os.PathLike[str]) -> str:
    """Move a local file to a URL; folders are made.

    Object stores show an object once it is complete. On local disk the file is copied beside its
    place and renamed, so that no reader meets half of it.
    """
    fs, path = resolve(url)
    if isinstance(fs, LocalFileSystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        try:
            shutil.copyfile(source, partial)
            # mkstemp's files are for the owner alone; a result has the mode a new file would have.
            os.chmod(partial, 0o666 & ~_umask())
            os.replace(partial, target)
        finally:
            Path(partial).unlink(missing_ok=True)  # it has its place by now, or never will
    else:
        fs.put_file(str(source), path)
    return os.fspath(url)


def _umask() -> int:
    # The only portable way to read it is to set it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def put_bytes(data: bytes, url: str | os.PathLike[str]) -> str:
    """Write bytes to a URL, as :func:`put_file` does."""
    with scratch_file("") as path:
        path.write_bytes(data)
        return put_file(path, url)
