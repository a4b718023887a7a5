"""What a run leaves behind: enough to say what was done, to do it again, and to go on.

See ``docs/formats.md``, "Run record". URLs are written without queries and passwords: those can be
signatures.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import shapely

from rasteret_dask.collection import Collection
from rasteret_dask.errors import PipelineError, SchemaVersionError
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.reading import Vectors
from rasteret_dask.write.target import put_bytes, resolve

VERSION = 1
FORMAT = "rasteret-dask run"
_PACKAGES = ("rasteret-dask", "dask", "distributed", "numpy", "xarray", "zarr", "pyarrow")


@dataclass(slots=True)
class Record:
    """The record of one run; written again whenever something in it changes.

    Parameters
    ----------
    url : str
        Where it lies.
    document : dict
        What it says.
    """

    url: str
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether everything was written."""
        return bool(self.document.get("state") == "done")

    def save(self, **changes: Any) -> None:
        """Change some keys, and write it."""
        self.document |= changes
        text = json.dumps(self.document, indent=1, sort_keys=True, default=str)
        put_bytes(text.encode(), self.url)


def begin(url: str, pipeline: Pipeline, collection: Collection, digest: str, items: int) -> Record:
    """A new record, written at once."""
    record = Record(url)
    snapshot = snapshot_of(collection)
    record.save(
        format=FORMAT,
        version=VERSION,
        state="running",
        started=_now(),
        digest=digest,
        pipeline=unsigned(pipeline.model_dump(mode="json", exclude_none=True)),
        versions={"python": platform.python_version(), **{n: version(n) for n in _PACKAGES}},
        collection={
            "name": collection.name,
            "url": None if collection.place is None else unsigned(collection.place.url),
            "snapshot": snapshot,
            "items": items,
        },
        outputs=[],
    )
    return record


def end(record: Record, state: str, **more: Any) -> None:
    """How it ended: `done`, `failed` or `interrupted`."""
    record.save(state=state, ended=_now(), **more)


def load(url: str) -> Record | None:
    """The record that lies there; None when there is none, or it is no record.

    Raises
    ------
    SchemaVersionError
        A newer version of this package wrote it.
    PipelineError
        Something else lies there, and is not replaced.
    """
    fs, path = resolve(url)
    if not fs.exists(path):
        return None
    try:
        document = json.loads(fs.cat_file(path))
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise PipelineError(
            f"{url} is no record of a run, and is not replaced", hint="set record: to another URL"
        )
    if document["version"] > VERSION:
        raise SchemaVersionError(
            f"the record is of version {document['version']}; {VERSION} is known", url=url
        )
    return Record(url, document)


def digest_of(pipeline: Pipeline, collection: Collection, vectors: Vectors) -> str:
    """Equal for equal results: of the pipeline, the snapshot and the vector files."""
    said = pipeline.model_dump(mode="json", exclude={"name", "description", "record", "foreach"})
    shapes = {
        name: hashlib.sha256(b"".join(shapely.to_wkb(frame.geometry.to_numpy()))).hexdigest()
        for name, frame in vectors.items()
    }
    text = json.dumps([version("rasteret-dask"), said, shapes, snapshot_of(collection)])
    return hashlib.sha256(text.encode()).hexdigest()


def snapshot_of(collection: Collection) -> dict[str, Any]:
    """Which rows a run works on."""
    commit = collection.commit
    if commit is not None:
        parts = hashlib.sha256("".join(part.sha256 for part in commit.parts).encode())
        return {"commit": commit.number, "identity": commit.identity, "parts": parts.hexdigest()}
    ids = collection.to_table(["id"]).column("id").to_pylist()
    return {"items": hashlib.sha256(json.dumps(ids).encode()).hexdigest()}


def unsigned(value: Any) -> Any:
    """The same without queries, user names and passwords in URLs."""
    if isinstance(value, Mapping):
        return {key: unsigned(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [unsigned(one) for one in value]
    if not isinstance(value, str) or "://" not in value:
        return value
    parts = urlsplit(value)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
