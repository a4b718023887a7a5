"""Kinds of values that keys of a pipeline have, and how unions of models are told apart."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field
from pydantic_core import PydanticCustomError

from rasteret_dask.documents import TAG
from rasteret_dask.pipeline import dates


def _day(value: Any) -> Any:
    """YAML reads 2023-08-01 as a date; the rest of the package takes text. Sums are done now, so
    that a record says which day it was."""
    if isinstance(value, dt.date | dt.datetime):
        return value.isoformat()
    return dates.resolve(value) if isinstance(value, str) else value


def _check_bbox(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) == 4:
        try:
            west, south, east, north = (float(v) for v in value)
        except TypeError:  # null, or a list: pydantic says which
            return value
        if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
            raise ValueError(
                f"{list(value)} is no box in degrees; expected west, south, east, north "
                "(west > east crosses the antimeridian)"
            )
    return value


def _crs(value: Any) -> Any:
    return f"EPSG:{value}" if isinstance(value, int) and not isinstance(value, bool) else value


Crs = Annotated[str, Field(min_length=1), BeforeValidator(_crs)]
Day = Annotated[str, BeforeValidator(_day)]
DateRange = tuple[Day, Day]
BBox = Annotated[tuple[float, float, float, float], BeforeValidator(_check_bbox)]
Url = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]


def exactly_one(values: Mapping[str, Any], names: Iterable[str], what: str) -> None:
    """Refuse none, and more than one, of these keys.

    Raises
    ------
    PydanticCustomError
        None is given, or several.
    """
    given = [name for name in names if values[name] is not None]
    if len(given) != 1:
        choices = ", ".join(names)
        met = f"both {' and '.join(given)} are given" if given else "none is given"
        raise PydanticCustomError(
            "key_conflict",
            "{what} takes exactly one of {choices}; {met}",
            {"what": what, "choices": choices, "met": met},
        )


def by_key(what: str, *keys: str) -> Discriminator:
    """Tell the member of a union by the one key that only it has."""

    def tag(value: Any) -> str | None:
        present = value if isinstance(value, Mapping) else getattr(value, "model_fields_set", ())
        found = [key for key in keys if key in present]
        return TAG + found[0] if len(found) == 1 else None

    return Discriminator(
        tag,
        custom_error_type="key_conflict",
        custom_error_message=f"{what} is a mapping with exactly one of the keys {', '.join(keys)}",
    )


def by_type(message: str) -> Discriminator:
    """Tell the member of a union by the type of the value: tags `TEXT`, `NUMBER`, `LIST` and
    `MAPPING`."""

    def tag(value: Any) -> str | None:
        kinds = ((str, TEXT), (int | float, NUMBER), (list | tuple, LIST), (Mapping, MAPPING))
        return next((name for kind, name in kinds if isinstance(value, kind)), None)

    return Discriminator(tag, custom_error_type="key_conflict", custom_error_message=message)


TEXT, NUMBER, LIST, MAPPING = (TAG + name for name in ("text", "number", "list", "mapping"))
