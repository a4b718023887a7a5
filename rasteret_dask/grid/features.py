"""The properties of GeoJSON features, as the columns of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa


def features_of(given: Any) -> list[Mapping[str, Any]] | None:
    """The features that something holds; None when it holds anything else."""
    if hasattr(given, "__geo_interface__"):
        given = given.__geo_interface__
    if isinstance(given, Mapping):
        kind = given.get("type")
        if kind == "FeatureCollection":
            return list(given["features"])
        return [given] if kind == "Feature" else None
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        parts = [features_of(one) for one in given]
        if all(part is not None for part in parts):
            return [one for part in parts for one in part or ()]
    return None


def named_crs(given: Any) -> str | None:
    """The CRS that GeoJSON names as its first version allowed, and as GeoPandas, QGIS and GDAL still write it; None without one."""
    if hasattr(given, "__geo_interface__"):
        given = given.__geo_interface__
    said = given.get("crs") if isinstance(given, Mapping) else None
    inner = said.get("properties") if isinstance(said, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else None


def feature_columns(given: Any) -> pa.Table | None:
    """A column for each property that any feature has, null where one lacks it; None for what has no properties.

    Values of several types, which no column can hold, become text.
    """
    features = features_of(given)
    if not features:
        return None
    rows = [dict(feature.get("properties") or {}) for feature in features]
    names = dict.fromkeys(name for row in rows for name in row)
    if not names:
        return None
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        texts = [
            v if v is None or isinstance(v, str) else json.dumps(v, default=str) for v in values
        ]
        return pa.array(texts, pa.string())
