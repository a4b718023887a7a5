"""Importing this makes torchvision importable, in the tests and in the processes that they start.

torchvision's compiled part does not load beside a CPU build of torch. Declaring the operators that it misses lets the rest be imported;
declaring them where they do load would abort the process, so the import is tried first.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any


def _make_importable() -> Any:
    """Return what must be kept: the declaration ends with it."""
    try:
        import torchvision  # noqa: PLC0415
    except RuntimeError as error:
        if "nms" not in str(error):
            raise
    else:
        return None
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torch  # noqa: PLC0415

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401, PLC0415

    return library


_KEPT = _make_importable()


class Sent:
    """A dataset on its way to a process that must import this module first."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getstate__(self) -> bytes:
        return pickle.dumps(self.dataset)

    def __setstate__(self, state: bytes) -> None:
        self.dataset = pickle.loads(state)

    def __getitem__(self, query: Any) -> Any:
        return self.dataset[query]

    def __getitems__(self, queries: Any) -> Any:
        return self.dataset.__getitems__(queries)

    def __len__(self) -> int:
        return len(self.dataset)
