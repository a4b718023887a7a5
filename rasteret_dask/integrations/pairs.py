"""``a & b`` and ``a | b`` of TorchGeo datasets, with batches that are fetched together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torchgeo.datasets import IntersectionDataset, UnionDataset

from rasteret_dask.errors import ArgumentError

Sample = dict[str, Any]


class _Pair:
    """Two datasets whose chips are fetched batch by batch, as each of them alone would be."""

    datasets: list[Any]
    collate_fn: Any
    transforms: Any

    def __and__(self, other: Any) -> Intersection:
        return Intersection(self, other)

    def __or__(self, other: Any) -> Union:
        return Union(self, other)

    def __getitem__(self, query: Any, /) -> Sample:
        return self.__getitems__([query])[0]

    def __getitems__(self, queries: Sequence[Any]) -> list[Sample]:
        found = self.samples(queries)
        for query, sample in zip(queries, found):
            if sample is None:
                raise IndexError(f"query: {query} not found in the index")
        return found  # type: ignore[return-value]  # None is ruled out above

    def samples(self, queries: Sequence[Any]) -> list[Sample | None]:
        """Return several samples; None for those that are not found."""
        lead = _collection_of(self)
        if lead is not None:
            # The others are asked for the very pixels that the first one has, which need not be those of the query.
            queries = [lead.snapped(query) for query in queries]
        columns = [_samples(dataset, queries) for dataset in self.datasets]
        out: list[Sample | None] = []
        for parts in zip(*columns):
            sample = self._join([part for part in parts if part is not None], len(parts))
            if sample is not None and self.transforms is not None:
                sample = self.transforms(sample)
            out.append(sample)
        return out

    def _join(self, parts: list[Sample], wanted: int) -> Sample | None:
        raise NotImplementedError


class Intersection(_Pair, IntersectionDataset):
    """``a & b`` with batches: TorchGeo's ``IntersectionDataset``, whose collections are read on the first one's very pixels."""

    def __init__(self, first: Any, second: Any, *args: Any, **options: Any) -> None:
        if not args:
            options.setdefault("collate_fn", join_samples)
        super().__init__(first, second, *args, **options)

    def _join(self, parts: list[Sample], wanted: int) -> Sample | None:
        joined: Sample | None = self.collate_fn(parts) if len(parts) == wanted else None
        return joined


class Union(_Pair, UnionDataset):
    """``a | b`` with batches: where the first has nothing, the second is taken."""

    def __init__(self, first: Any, second: Any, *args: Any, **options: Any) -> None:
        if not args:
            options.setdefault("collate_fn", _Complete(_gap(first)))
        super().__init__(first, second, *args, **options)

    def _join(self, parts: list[Sample], wanted: int) -> Sample | None:
        joined: Sample | None = self.collate_fn(parts) if parts else None
        return joined


def _collection_of(dataset: Any) -> Any:
    """Return the collection whose grid leads, if there is one (told by `on_grid`, as its class imports this module)."""
    if isinstance(dataset, _Pair):
        return _collection_of(dataset.datasets[0])
    return dataset if hasattr(dataset, "on_grid") else None


def _gap(dataset: Any) -> Any:
    own = _collection_of(dataset)
    return 0 if own is None else own.windows.bands[0].output.gap


def _samples(dataset: Any, queries: Sequence[Any]) -> list[Sample | None]:
    out: list[Sample | None] = []
    if isinstance(dataset, _Pair) or hasattr(dataset, "on_grid"):
        out = dataset.samples(queries)
        return out
    for query in queries:
        try:
            out.append(dataset[query])
        except IndexError:
            out.append(None)
    return out


_ONCE = ("bounds", "transform", "crs", "time")


def join_samples(samples: Sequence[Mapping[str, Any]]) -> Sample:
    """Join samples of one place: channels are put behind one another; where and when are told once.

    Raises
    ------
    ArgumentError
        Series of different dates, or a series and an image without dates.
    """
    out: Sample = {}
    for sample in samples:
        for key, value in sample.items():
            if key not in out:
                out[key] = value
            elif key not in _ONCE and isinstance(value, torch.Tensor) and value.ndim:
                if key == "image":
                    _check_dates(out, sample)
                # A series is of shape (time, channels, y, x).
                axis = 1 if key == "image" and value.ndim == 4 else 0
                out[key] = torch.cat([out[key], value], dim=axis)
    return out


def _check_dates(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    images = [one["image"], other["image"]]
    if all(image.ndim != 4 for image in images):
        return
    times = [sample.get("time") for sample in (one, other)]
    told = all(isinstance(time, torch.Tensor) for time in times)
    same = images[0].ndim == images[1].ndim and len(images[0]) == len(images[1])
    if not same or (told and not torch.equal(*times)):
        raise ArgumentError(
            "series of different dates make no pair: their images have no channels of one moment",
            hint="leave time_series=True out in one of the two, or stack what they give by yourself",
        )


class _Complete:
    """Fill what one sample lacks from the next."""

    def __init__(self, gap: Any) -> None:
        self.gap = gap

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Sample:
        out = dict(samples[0])
        for sample in samples[1:]:
            for key, value in sample.items():
                if key not in out:
                    out[key] = value
                elif key in ("image", "mask"):
                    if key == "image":
                        _check_dates(out, sample)
                    empty = out[key].isnan() if self.gap != self.gap else out[key] == self.gap
                    out[key] = torch.where(empty, value, out[key])
        return out
