"""The keys of a pipeline that say what to compute: one model for each kind of step.

The key of a step names its kind (``- reduce: {...}``). A new kind is a model here, its name in the
union below, and an entry in `steps.STEPS` or `tables.TABLES`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from rasteret_dask.documents import TAG, Strict
from rasteret_dask.pipeline.indices import INDICES
from rasteret_dask.pipeline.keys import Name, Url, by_key

How = Literal["median", "mean", "min", "max", "sum", "std", "percentile", "count"]
_STATISTIC = re.compile(r"mean|median|std|min|max|sum|count|p(\d{1,2}|100)")


class ExpressionStep(Strict):
    """New variables from expressions over bands; the rest is dropped unless kept by name."""

    expression: dict[Name, Name] = Field(min_length=1)
    keep: tuple[Name, ...] = ()


def _index(value: Any) -> Any:
    if isinstance(value, str) and value.lower() not in INDICES:
        raise ValueError(f"no index {value!r}; there are {', '.join(INDICES)}")
    return value.lower() if isinstance(value, str) else value


Index = Annotated[str, BeforeValidator(_index)]


class IndexStep(Strict):
    """Well-known indices by name; the rest is dropped unless kept by name."""

    indices: tuple[Index, ...] = Field(min_length=1, description="As ndvi, ndwi, nbr.")
    bands: dict[Name, Name] = Field(
        default={}, description="Role → variable, as nir: B8A, where names do not tell."
    )
    keep: tuple[Name, ...] = ()


class Statistic(Strict):
    """How values of one kind become one; nodata is left out."""

    how: How
    q: Annotated[float, Field(ge=0, le=100)] | None = Field(default=None, description="Percent.")

    @model_validator(mode="after")
    def _needs_q(self) -> Statistic:
        if (self.how == "percentile") != (self.q is not None):
            raise PydanticCustomError(
                "key_conflict", "`q` (0 to 100) belongs to `how: percentile`, and it needs it"
            )
        return self


class Reduction(Statistic):
    """How a dimension disappears."""

    dim: Literal["time"] = "time"
    looks: Name | None = Field(
        default=None,
        description="Also make this variable: how many looks of the first one were valid.",
    )


class ReduceStep(Strict):
    """A reduction of every variable."""

    reduce: Reduction


class Composite(Strict):
    """Of each pixel the look in which one variable is highest (or lowest): all variables of it."""

    by: Name
    how: Literal["max", "min"] = "max"


class CompositeStep(Strict):
    """A composite over time, as maximum NDVI."""

    composite: Composite


class Resample(Statistic):
    """Steps of equal length in place of the dates: a statistic of each."""

    period: Annotated[str, Field(pattern=r"^[1-9][0-9]*(D|W|MS|QS|YS)$")] = Field(
        description="Days, weeks, months, quarters or years: 10D, 1W, 1MS, 1QS, 1YS."
    )


class ResampleStep(Strict):
    """A statistic of every period; periods without a look are left out."""

    resample: Resample


class Custom(Strict):
    """A function of the user's own: `Dataset, **options → Dataset`, lazy."""

    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] = Field(
        description="As package.module:function."
    )
    options: dict[Name, Any] = {}  # noqa: RUF012 -- pydantic copies it
    variables: tuple[Name, ...] = Field(min_length=1, description="What it gives.")
    time: bool = Field(default=True, description="Whether its result has a time dimension.")


class CustomStep(Strict):
    """A step by import path; runs only with ``--allow-custom``."""

    custom: Custom


# --- steps whose result is a table --------------------------------------------------------------
def _statistic(value: Any) -> Any:
    if isinstance(value, str) and _STATISTIC.fullmatch(value) is None:
        raise ValueError(
            f"no statistic {value!r}; there are mean, median, std, min, max, sum, count, p0 … p100"
        )
    return value


class Zonal(Strict):
    """Statistics of every variable in every polygon, at every time."""

    polygons: Url = Field(description="A vector file, or GeoParquet.")
    id: Name | None = Field(
        default=None, description="The column that names a polygon; its row number by default."
    )
    keep: tuple[Name, ...] = Field(default=(), description="Columns that are taken along.")
    stats: tuple[Annotated[str, BeforeValidator(_statistic)], ...] = Field(
        default=("mean", "count"), min_length=1
    )
    all_touched: bool = False


class ZonalStep(Strict):
    """The cube becomes a table of zones; the last step."""

    zonal: Zonal


class Points(Strict):
    """The values of every variable at every point, at every time."""

    points: Url = Field(description="A vector file, or GeoParquet.")
    id: Name | None = Field(
        default=None, description="The column that names a point; its row number by default."
    )
    keep: tuple[Name, ...] = Field(default=(), description="Columns that are taken along.")


class SampleStep(Strict):
    """The cube becomes a table of points; the last step."""

    sample: Points


Step = Annotated[
    Annotated[ExpressionStep, Tag(TAG + "expression")]
    | Annotated[IndexStep, Tag(TAG + "indices")]
    | Annotated[ReduceStep, Tag(TAG + "reduce")]
    | Annotated[CompositeStep, Tag(TAG + "composite")]
    | Annotated[ResampleStep, Tag(TAG + "resample")]
    | Annotated[CustomStep, Tag(TAG + "custom")]
    | Annotated[ZonalStep, Tag(TAG + "zonal")]
    | Annotated[SampleStep, Tag(TAG + "sample")],
    by_key(
        "a step",
        "expression",
        "indices",
        "reduce",
        "composite",
        "resample",
        "custom",
        "zonal",
        "sample",
    ),
]
