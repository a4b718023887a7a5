"""Items in the order that a search asked for, where several answers become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def in_order(items: Sequence[Json], sortby: Any) -> list[Json]:
    """Items as STAC's sort extension orders them; those that lack a property come last.

    Parameters
    ----------
    items : sequence of mapping
    sortby : str, mapping, or sequence of these, optional
        As of a search: ``"-datetime,+id"``, or ``{"field": "datetime", "direction": "desc"}``.
    """
    found = list(items)
    for field, down in reversed(_keys(sortby)):
        told = [item for item in found if _value(item, field) is not None]
        rest = [item for item in found if _value(item, field) is None]
        found = sorted(told, key=lambda item: _comparable(_value(item, field)), reverse=down) + rest
    return found


def _keys(sortby: Any) -> list[tuple[str, bool]]:
    if sortby is None:
        return []
    if isinstance(sortby, str):
        parts = [part.strip() for part in sortby.split(",")]
        return [(part.lstrip("+-"), part.startswith("-")) for part in parts if part]
    if isinstance(sortby, Mapping):
        return [(str(sortby["field"]), str(sortby.get("direction", "asc")).lower() == "desc")]
    return [key for one in sortby for key in _keys(one)]


def _value(item: Json, field: str) -> Any:
    """APIs take the fields of an item and of its properties, with and without saying so."""
    properties = item.get("properties") or {}
    plain = field.removeprefix("properties.")
    return properties[plain] if plain in properties else item.get(plain)


def _comparable(value: Any) -> tuple[str, Any]:
    """Numbers with numbers, texts with texts."""
    return ("", value) if isinstance(value, int | float) else ("t", str(value))
