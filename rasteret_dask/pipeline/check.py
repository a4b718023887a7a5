"""The sense of a pipeline as a whole, before anything runs."""

from __future__ import annotations

from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import outputs
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.steps import STEPS, Shape


def check(pipeline: Pipeline) -> Shape:
    """Follow the variables through all steps into all outputs, and say what comes out.

    Raises
    ------
    ConfigError
        A step or an output names what is not there, or cannot follow what came before.
    """
    if pipeline.steps and not pipeline.masked:
        raise ConfigError(
            "masked: false would compute with nodata values as if they were measured",
            path="cube.masked",
            hint="leave it out, or have no steps",
        )
    shape = Shape(pipeline.cube.bands, time=True)
    for index, step in enumerate(pipeline.steps):
        shape = STEPS[type(step)].check(step, shape, f"steps[{index}]")
    taken: set[str] = set()
    for index, output in enumerate(pipeline.outputs):
        path = f"outputs[{index}]"
        outputs.check(output, shape, path)
        url = outputs.url_of(output).rstrip("/")
        if url in taken:
            key = outputs.OUTPUTS[type(output)].key
            raise ConfigError(f"{url} is written twice", path=f"{path}.{key}")
        taken.add(url)
    return shape
