"""The sense of a pipeline as a whole, before anything runs."""

from __future__ import annotations

from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline import indices, outputs
from rasteret_dask.pipeline.config import Pipeline
from rasteret_dask.pipeline.results import StacOutput
from rasteret_dask.pipeline.shape import Shape
from rasteret_dask.pipeline.steps import STEPS
from rasteret_dask.pipeline.work import CustomStep, IndexStep


def check(pipeline: Pipeline, *, allow_custom: bool = True) -> Shape:
    """Follow the variables through all steps into all outputs, and say what comes out.

    Parameters
    ----------
    pipeline : Pipeline
    allow_custom : bool
        Whether steps by import path may run.

    Raises
    ------
    ConfigError
        A step or an output names what is not there, or cannot follow what came before.
    """
    if pipeline.computes and not pipeline.masked:
        raise ConfigError(
            "masked: false would compute with nodata values as if they were measured",
            path="cube.masked",
            hint="leave it out, or have no steps",
        )
    shape = Shape(pipeline.cube.bands, time=True)
    for index, step in enumerate(pipeline.steps):
        path = f"steps[{index}]"
        if shape.table or shape.chips:
            what = "a table" if shape.table else "chips"
            raise ConfigError(f"nothing can follow a step that ends in {what}", path=path)
        if isinstance(step, CustomStep) and not allow_custom:
            raise ConfigError(
                f"{step.custom.function} is code of your own, and runs only when you allow it",
                path=f"{path}.custom.function",
                hint="run with --allow-custom",
            )
        if isinstance(step, IndexStep) and not pipeline.cube.scale:
            _needs_scale(step, f"{path}.indices")
        shape = STEPS[type(step)].check(step, shape, path)
    _check_outputs(pipeline, shape)
    return shape


def _needs_scale(step: IndexStep, path: str) -> None:
    for position, name in enumerate(step.indices):
        if name in indices.NEEDS_REFLECTANCE:
            raise ConfigError(
                f"the constants of {name} mean reflectance, and the cube holds digital numbers",
                path=f"{path}[{position}]",
                hint="set cube.scale: true",
            )


def _check_outputs(pipeline: Pipeline, shape: Shape) -> None:
    taken: set[str] = set()
    for index, output in enumerate(pipeline.outputs):
        path = f"outputs[{index}]"
        outputs.check(output, shape, path)
        url = outputs.url_of(output).rstrip("/")
        key = outputs.OUTPUTS[type(output)].key
        if url in taken or url == pipeline.record:
            raise ConfigError(f"{url} is written twice", path=f"{path}.{key}")
        taken.add(url)
    if all(isinstance(output, StacOutput) for output in pipeline.outputs):
        raise ConfigError(
            "a STAC item describes the other outputs, and there are none", path="outputs"
        )
