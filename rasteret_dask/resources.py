"""Where the files that ship with the package lie: example pipelines, cluster profiles, descriptors.

In a checkout they are folders beside the package; in an installed wheel they are
``rasteret_dask/_data``.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from rasteret_dask.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The folder of that name: ``pipelines``, ``configs``, ``configs/clusters`` …

    Raises
    ------
    ConfigError
        The installation is incomplete.
    """
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        if (root / name).is_dir():
            return root / name
    raise ConfigError(f"this installation lacks its folder {name!r}; install the package again")


def find(name: str, kind: str) -> Path:
    """A file that the user names: a path that exists, or the name of one that ships with the
    package.

    Parameters
    ----------
    name : str
        ``my/file.yaml``, or ``ndvi_median`` or ``ndvi_median.yaml``.
    kind : str
        The folder to look in, as ``pipelines``.

    Raises
    ------
    ConfigError
        Neither exists; the hint lists what ships.
    """
    given = Path(name).expanduser()
    if given.is_file():
        return given
    if given.parent == Path():
        shipped = folder(kind) / (name if given.suffix in (".yaml", ".yml") else f"{name}.yaml")
        if shipped.is_file():
            return shipped
    near = difflib.get_close_matches(given.stem, names(kind), n=1, cutoff=0.6)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(
        f"{name}: no such file", hint=f"{meant}{kind} that ship: {', '.join(names(kind))}"
    )


def names(kind: str) -> list[str]:
    """Names of the YAML files of that kind that ship with the package, sorted."""
    return sorted(path.stem for path in folder(kind).glob("*.yaml"))
