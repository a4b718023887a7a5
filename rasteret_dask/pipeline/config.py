"""What a pipeline file may say: typed values, refused with the path of the key when they mean
nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from rasteret_dask.documents import Lines, Strict, assign, read, substitute, validate
from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline.keys import Name, Url
from rasteret_dask.pipeline.results import Output
from rasteret_dask.pipeline.sources import Cube, Source
from rasteret_dask.pipeline.work import ChipsStep, Step

VERSION = 1


class Foreach(Strict):
    """Run the pipeline once for each row of a table: ``{column}`` in texts is the row's value."""

    table: Url = Field(description="Parquet, CSV, or a vector file.")
    id: Name = Field(description="The column that names a unit; no value may occur twice.")
    shard: Annotated[str, Field(pattern=r"^\d+/[1-9]\d*$")] | None = Field(
        default=None, description="i/n: only every n-th row from row i (from 0), for job arrays."
    )
    crop: bool = Field(
        default=True, description="Crop the cube to the row's geometry, where the table has some."
    )


def _one_output(schema: dict[str, Any]) -> None:
    """Editors know `output` too: one, without a list."""
    properties = schema["properties"]
    properties["output"] = properties["outputs"]["items"]
    schema["required"].remove("outputs")
    schema["oneOf"] = [{"required": ["output"]}, {"required": ["outputs"]}]


class Pipeline(Strict):
    """A whole pipeline: which collection, which cube, what to compute, where it goes.

    ``output: {...}`` is short for ``outputs: [{...}]``.
    """

    model_config = ConfigDict(json_schema_extra=_one_output)

    version: Literal[1]
    name: Name = "pipeline"
    description: str = ""
    foreach: Foreach | None = None
    collection: Source
    cube: Cube
    steps: tuple[Step, ...] = ()
    outputs: tuple[Output, ...] = Field(min_length=1)
    record: Url | None = Field(
        default=None, description="Where the run's record goes; beside the first output by default."
    )
    _area: Mapping[str, Any] | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "output" not in values or "outputs" in values:
            return values
        rest = {key: value for key, value in values.items() if key != "output"}
        return {**rest, "outputs": [values["output"]]}

    @property
    def area(self) -> Mapping[str, Any] | None:
        """What the cube is cropped to, as the record of a unit of `foreach` says it; None for a
        pipeline of any other source."""
        return self._area

    def cropped(self, area: Mapping[str, Any] | None) -> Pipeline:
        """The same, cropped to what a record says, unless it names an area of its own."""
        made = self.model_copy()
        own = self.cube.bbox is not None or self.cube.geometries is not None
        made._area = None if own else area
        return made

    @property
    def masked(self) -> bool:
        """Whether the cube has NaN for nothing: as said, else when something is computed from
        it."""
        return self.computes if self.cube.masked is None else self.cube.masked

    @property
    def computes(self) -> bool:
        """Whether a step makes new values; chips are cut out as they are."""
        return any(not isinstance(step, ChipsStep) for step in self.steps)


def from_mapping(data: Mapping[str, Any]) -> Pipeline:
    """Make a pipeline from keys and values; the shape of every value is checked, not yet their
    sense together."""
    return validate(Pipeline, data)


def from_file(
    source: Path, sets: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> Pipeline:
    """Read a pipeline, apply ``--set`` assignments, fill in ``${ENV}`` and check every key.

    The record of a run is taken too: it holds its pipeline, and the area of a unit of `foreach`.

    Raises
    ------
    ConfigError
        With the path of the key and what was expected.
    """
    data = read(source)
    if "format" in data and isinstance(data.get("pipeline"), dict):
        # A record holds values, where a dollar sign is a dollar sign.
        area, data = data.get("area"), _literal(data["pipeline"])
        return from_mapping(substitute(assign(data, sets), environment)).cropped(area)
    sets = list(sets)
    lines = Lines(source, sets)
    try:
        return validate(Pipeline, substitute(assign(data, sets), environment), lines.say)
    except ConfigError as error:
        raise lines.told(error) from None


def _literal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _literal(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_literal(one) for one in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def schema() -> dict[str, Any]:
    """The JSON schema of a pipeline file, for editors."""
    made = Pipeline.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
