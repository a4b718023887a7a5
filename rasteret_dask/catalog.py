"""Dataset descriptors, read from YAML: where datasets live and what their bands are called.

A catalogue is a value. The built-in one ships with the package; a user's own file is laid over it.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from rasteret_dask import documents, resources
from rasteret_dask.errors import ConfigError, UnknownDatasetError
from rasteret_dask.model import BandInfo, DatasetDescriptor

ENVIRONMENT = "RASTERET_DASK_CATALOG"


class _Band(documents.Strict):
    asset: str | None = None
    index: int = 0
    common_name: str | None = None
    aliases: tuple[str, ...] = ()
    categorical: bool = False
    nodata: float | None = None
    decode: str | None = None
    scale: float | None = None
    offset: float | None = None


class _Dataset(documents.Strict):
    title: str = ""
    description: str = ""
    license: str = ""
    attribution: str = ""
    stac_api: str | None = None
    stac_collection: str | None = None
    static_catalog: str | None = None
    parquet: str | None = None
    bands: dict[str, _Band] = {}  # noqa: RUF012 -- pydantic copies it
    harmonize: str | None = None
    requires_auth: str | None = None
    storage: dict[str, str] = {}  # noqa: RUF012 -- pydantic copies it
    prefer: str | None = None
    url_rewrite_patterns: dict[str, str] = {}  # noqa: RUF012 -- pydantic copies it
    example_bbox: tuple[float, float, float, float] | None = None
    example_dates: tuple[str, str] | None = None


class _File(documents.Strict):
    datasets: dict[str, _Dataset]


@dataclass(frozen=True, slots=True)
class Catalog(Mapping[str, DatasetDescriptor]):
    """Descriptors by id.

    Parameters
    ----------
    descriptors : mapping of str to DatasetDescriptor
    """

    descriptors: Mapping[str, DatasetDescriptor]

    def __getitem__(self, key: str) -> DatasetDescriptor:
        try:
            return self.descriptors[key]
        except KeyError:
            near = difflib.get_close_matches(key, list(self.descriptors), n=1, cutoff=0.5)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownDatasetError(
                f"no dataset {key!r} in the catalogue",
                hint=f"{meant}known: {', '.join(sorted(self.descriptors))}",
            ) from None

    def __contains__(self, key: object) -> bool:
        return key in self.descriptors

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.descriptors))

    def __len__(self) -> int:
        return len(self.descriptors)

    def register(self, descriptor: DatasetDescriptor) -> Catalog:
        """A catalogue that also holds `descriptor`, in place of one with the same id."""
        return Catalog({**self.descriptors, descriptor.id: descriptor})

    def search(self, words: str) -> list[DatasetDescriptor]:
        """Descriptors that hold every word in their id, title or description."""
        wanted = words.lower().split()
        return [
            d
            for d in (self[key] for key in self)
            if all(w in f"{d.id} {d.title} {d.description}".lower() for w in wanted)
        ]

    def find(self, stac_api: str | None, collection: str | None) -> DatasetDescriptor | None:
        """The descriptor of that collection of that API, if there is exactly one."""
        if not stac_api or not collection:
            return None
        api = stac_api.rstrip("/")
        found = [
            d
            for d in self.descriptors.values()
            if (d.stac_api or "").rstrip("/") == api and d.stac_collection == collection
        ]
        return found[0] if len(found) == 1 else None

    def save(self, path: str | Path) -> Path:
        """Write the descriptors to a YAML file that `read` understands."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        document = {"datasets": {key: _plain(self[key]) for key in self}}
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        target.write_text(text, encoding="utf-8")
        return target


def read(path: str | Path) -> Catalog:
    """Read a catalogue from a YAML file.

    Raises
    ------
    ConfigError
        The file is missing or wrong; ``path`` names the key.
    """
    found = documents.validate(_File, documents.read(Path(path)))
    return Catalog({key: _descriptor(key, value) for key, value in found.datasets.items()})


def built_in() -> Catalog:
    """The descriptors that ship with the package."""
    descriptors: dict[str, DatasetDescriptor] = {}
    for path in sorted((resources.folder("configs") / "datasets").glob("*.yaml")):
        descriptors.update(read(path).descriptors)
    return Catalog(descriptors)


def user_file() -> Path:
    """The user's own catalogue: ``$RASTERET_DASK_CATALOG``, else in the configuration folder."""
    named = os.environ.get(ENVIRONMENT)
    return Path(named) if named else platformdirs.user_config_path("rasteret-dask") / "catalog.yaml"


def default() -> Catalog:
    """The built-in catalogue with the user's laid over it.

    Raises
    ------
    ConfigError
        ``$RASTERET_DASK_CATALOG`` names a file that is not there, or the user's file is wrong.
    """
    path = user_file()
    if not path.exists():
        if os.environ.get(ENVIRONMENT):
            raise ConfigError(f"{ENVIRONMENT} names {path}, which is not there")
        return built_in()
    return Catalog({**built_in().descriptors, **read(path).descriptors})


def register(descriptor: DatasetDescriptor, path: str | os.PathLike[str] | None = None) -> Catalog:
    """Keep a descriptor in the user's own catalogue, in place of one with the same id.

    Parameters
    ----------
    descriptor : DatasetDescriptor
    path : str, optional
        The file; `user_file` by default.

    Returns
    -------
    Catalog
        The built-in catalogue with the user's, as it is now.
    """
    file = user_file() if path is None else Path(path)
    own = read(file) if file.exists() else Catalog({})
    own = own.register(descriptor)
    own.save(file)
    return Catalog({**built_in().descriptors, **own.descriptors})


def _band(name: str, band: _Band) -> BandInfo:
    return BandInfo(name=name, **{**dict(band), "asset": band.asset or name})


def _descriptor(key: str, value: _Dataset) -> DatasetDescriptor:
    fields = {**dict(value), "bands": tuple(_band(n, b) for n, b in value.bands.items())}
    return DatasetDescriptor(id=key, **fields)


def _plain(descriptor: DatasetDescriptor) -> dict[str, Any]:
    fields = dataclasses.asdict(descriptor)
    fields.pop("id")
    bands = {}
    for band in fields.pop("bands"):
        name = band.pop("name")
        bands[name] = _without_defaults(band, _Band)
    plain = _without_defaults(fields, _Dataset)
    return {**plain, "bands": bands} if bands else plain


def _without_defaults(fields: dict[str, Any], model: type[documents.Strict]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in fields.items()
        if value != model.model_fields[key].default
    }
