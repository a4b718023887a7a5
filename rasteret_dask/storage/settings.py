"""Storage profiles: a YAML file that says how rasters are reached, as :class:`~rasteret_dask.model.StorageOptions`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from rasteret_dask.documents import Strict, assign, read, substitute, validate
from rasteret_dask.errors import ArgumentError, ConfigError
from rasteret_dask.model import RatePolicy, RetryPolicy, StorageOptions
from rasteret_dask.resources import find
from rasteret_dask.storage.recipes import make_recipe

FOLDER = "configs/storage"


class Retry(Strict):
    """As :class:`~rasteret_dask.model.RetryPolicy`."""

    attempts: int | None = None
    base: float | None = None
    cap: float | None = None
    stall: float | None = None
    patience: float | None = None


class Rate(Strict):
    """As :class:`~rasteret_dask.model.RatePolicy`."""

    in_flight: int | None = None
    budget: int | None = None
    cluster_in_flight: int | None = None
    per_second: float | None = None


class Settings(Strict):
    """How rasters are reached; holds no secret."""

    auth: str | None = Field(default=None, description="A recipe, or module:function.")
    auth_options: dict[str, str] = Field(default_factory=dict, description="Of the recipe.")
    options: dict[str, str] = Field(default_factory=dict, description="Of the store.")
    retry: Retry = Retry()
    rate: Rate = Rate()


def from_mapping(data: Mapping[str, Any]) -> StorageOptions:
    """Make storage options from keys and values.

    Raises
    ------
    ConfigError
        With the path of the key, or with what the options themselves or their recipe refuse.
    """
    found = validate(Settings, dict(data))
    try:
        made = StorageOptions(
            found.options,
            RetryPolicy(**found.retry.model_dump(exclude_none=True)),
            RatePolicy(**found.rate.model_dump(exclude_none=True)),
            found.auth,
            found.auth_options,
        )
        # One's own recipe need be importable only where it is used.
        if made.auth is not None and ":" not in made.auth:
            make_recipe(made)
    except ArgumentError as error:
        raise ConfigError(f"the storage profile: {error.message}", hint=error.hint) from None
    return made


def from_file(source: Path, sets: Iterable[str] = ()) -> StorageOptions:
    """Read a profile; see :mod:`rasteret_dask.documents` for ``${ENV}``."""
    return from_mapping(substitute(assign(read(source), sets)))


def named(name: str | None) -> StorageOptions | None:
    """Read the profile that a user names: a YAML file, or one that ships; None for none."""
    return None if name is None else from_file(find(name, FOLDER))
