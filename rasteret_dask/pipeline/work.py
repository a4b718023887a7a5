"""The keys of a pipeline that say what to compute: one model for each kind of step.

The key of a step names its kind (``- reduce: {...}``). A new kind is a model here, its name in the
union below, and an entry in `steps.STEPS` or `tables.TABLES`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from rasteret_dask.documents import TAG, Strict
from rasteret_dask.pipeline.indices import INDICES
from rasteret_dask.pipeline.keys import Name, Url, by_key, exactly_one
from rasteret_dask.pipeline.sources import Mosaic, Overviews, Resampling, Source

How = Literal["median", "mean", "min", "max", "sum", "std", "percentile", "count"]
PERIOD = r"^[1-9][0-9]*(D|W|MS|QS|YS)$"
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

    period: Annotated[str, Field(pattern=PERIOD)] = Field(
        description="Days, weeks, months, quarters or years: 10D, 1W, 1MS, 1QS, 1YS."
    )


def _short_form(schema: dict[str, Any]) -> None:
    """Editors know ``resample: 1YS`` with `how` beside it too."""
    short = {"type": "string", "pattern": PERIOD}
    properties = schema["properties"]
    properties["resample"] = {"anyOf": [properties["resample"], short]}
    properties["how"] = {"enum": list(get_args(How))}
    properties["q"] = {"type": "number", "minimum": 0, "maximum": 100}


class ResampleStep(Strict):
    """A statistic of every period; periods without a look are left out.

    ``{resample: 1YS, how: median}`` is short for ``{resample: {period: 1YS, how: median}}``.
    """

    model_config = ConfigDict(json_schema_extra=_short_form)

    resample: Resample

    @model_validator(mode="before")
    @classmethod
    def _long_form(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not isinstance(values.get("resample"), str):
            return values
        beside = {key: values[key] for key in ("how", "q") if key in values}
        rest = {key: v for key, v in values.items() if key not in ("resample", *beside)}
        return {**rest, "resample": {"period": values["resample"], **beside}}


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


class Stack(Strict):
    """Bands of another collection on the grid of the cube: all its items become one image."""

    collection: Source
    bands: tuple[Name, ...] = Field(min_length=1)
    resampling: Resampling = "bilinear"
    mosaic: Mosaic = Field(default="first", description="How its items become one.")
    overviews: Overviews = "auto"
    scale: bool = False
    nodata: float | None = Field(default=None, description="What its files mean by nothing.")
    missing: Literal["raise", "nodata"] = "raise"


class StackStep(Strict):
    """More variables, from elsewhere, as heights; after a reduction."""

    stack: Stack


class Similarity(Strict):
    """The cosine of the angle between each pixel's bands and those of a reference: -1 to 1."""

    point: tuple[float, float] | None = Field(
        default=None, description="Longitude and latitude of a pixel of the cube."
    )
    vector: tuple[float, ...] | None = Field(
        default=None, min_length=1, description="A number for each band."
    )
    bands: tuple[Name, ...] | None = Field(
        default=None, min_length=1, description="Which variables; all by default."
    )
    name: Name = Field(default="similarity", description="What the result is called.")

    @model_validator(mode="after")
    def _one_reference(self) -> Similarity:
        exactly_one({"point": self.point, "vector": self.vector}, ("point", "vector"), "similarity")
        return self


class SimilarityStep(Strict):
    """How alike every pixel is to one of them, or to a vector; the bands are dropped."""

    similarity: Similarity


# --- steps whose result is a table --------------------------------------------------------------
def _statistic(value: Any) -> Any:
    if isinstance(value, str) and _STATISTIC.fullmatch(value) is None:
        raise ValueError(
            f"no statistic {value!r}; there are mean, median, std, min, max, sum, count, p0 … p100"
        )
    return value


class Zonal(Strict):
    """Statistics of every variable in every polygon, at every time."""

    polygons: Url | None = Field(
        default=None,
        description="A vector file, or GeoParquet; by default the geometry of the row of `foreach`.",
    )
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


# --- the step whose result is files --------------------------------------------------------------
class Chips(Strict):
    """Windows of equal size, for training: a regular pattern, or one around each geometry."""

    size: int = Field(ge=1, description="Pixels along a side.")
    stride: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Pixels from one to the next; the size by default."
    )
    around: Url | None = Field(
        default=None,
        description="A vector file: a chip around the middle of each geometry, in place of a pattern.",
    )
    id: Name | None = Field(
        default=None, description="The column that names a chip; its row number by default."
    )
    keep: tuple[Name, ...] = Field(default=(), description="Columns that are taken along.")
    min_valid: float = Field(
        default=0.0, ge=0, le=1, description="Share of pixels that are valid in every variable."
    )

    @model_validator(mode="after")
    def _pattern_or_places(self) -> Chips:
        if self.around is not None and self.stride is not None:
            raise PydanticCustomError("key_conflict", "`stride` belongs to a pattern, not `around`")
        if self.around is None and (self.id is not None or self.keep):
            raise PydanticCustomError("key_conflict", "`id` and `keep` are columns of `around`")
        return self


class ChipsStep(Strict):
    """The cube becomes files of equal size; the last step."""

    chips: Chips


Step = Annotated[
    Annotated[ExpressionStep, Tag(TAG + "expression")]
    | Annotated[IndexStep, Tag(TAG + "indices")]
    | Annotated[ReduceStep, Tag(TAG + "reduce")]
    | Annotated[CompositeStep, Tag(TAG + "composite")]
    | Annotated[ResampleStep, Tag(TAG + "resample")]
    | Annotated[CustomStep, Tag(TAG + "custom")]
    | Annotated[ZonalStep, Tag(TAG + "zonal")]
    | Annotated[SampleStep, Tag(TAG + "sample")]
    | Annotated[StackStep, Tag(TAG + "stack")]
    | Annotated[SimilarityStep, Tag(TAG + "similarity")]
    | Annotated[ChipsStep, Tag(TAG + "chips")],
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
        "stack",
        "similarity",
        "chips",
    ),
]
