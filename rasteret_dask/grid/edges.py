"""How far a box reaches in another CRS: its edges, followed to the places where they reach furthest."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from pyproj import Transformer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bounds = tuple[float, float, float, float]

STEPS: Final = 22
"""Into how many steps an edge is divided, and what lies around a place when it is looked at more closely."""

ENOUGH: Final = 1e-7
"""Share of the image: what adds less than this is not looked for."""

_ROUNDS: Final = 6
_ALONG: Final = np.linspace(0.0, 1.0, STEPS + 1)
_ONE: Final = np.ones(STEPS + 1)
_ACROSS: Final = np.stack([_ALONG, _ONE, _ALONG, 0.0 * _ONE])
"""Places on the lower, the right, the upper and the left edge: how far from the left, as a share of the box."""
_UP: Final = np.stack([0.0 * _ONE, _ALONG, _ONE, _ALONG])
"""And how far from below."""


def image_bounds(
    there: Transformer, bounds: Bounds, turn: float, *, closely: bool = True, whole: bool = False
) -> Bounds:
    """Return the bounds of the image of a box.

    PROJ follows edges in 22 steps and knows poles and the antimeridian. Between two steps an edge may reach further, by a hundredth of the
    image around a pole and by some pixels in a wide scene. A parabola through three places says where, and whether it matters.

    Parameters
    ----------
    there : pyproj.Transformer
    bounds : tuple of float
        Left ≤ right.
    turn : float
        How far round the world is in the target; 0 where it does not go round.
    closely : bool
        Whether what lies between two steps matters.
    whole : bool
        Whether edges of which a part has no image have none; PROJ passes over such places.

    Returns
    -------
    tuple of float
        Of an image over the antimeridian, right goes on beyond a whole turn's end; infinite where there is no image.

    Raises
    ------
    pyproj.exceptions.ProjError
        As from PROJ.
    """
    left, bottom, right, top = there.transform_bounds(*bounds, densify_pts=STEPS - 1)
    if left > right:
        # PROJ says in this way that the image crosses the antimeridian.
        right += turn
    furthest = np.array([-left, -bottom, right, top])
    if not (closely or whole) or not np.isfinite(furthest).all():
        return left, bottom, right, top
    view = _View(there, bounds, turn, (left + right) / 2.0)
    x, y = view.images(_ACROSS, _UP)
    if whole and np.isnan(x).any():
        return np.inf, np.inf, np.inf, np.inf
    if not closely:
        return left, bottom, right, top
    least = ENOUGH * max(right - left, top - bottom)
    # An edge reaches beyond three places by an eighth of what it bends between them.
    if all(np.abs(k[:, 2:] - 2.0 * k[:, 1:-1] + k[:, :-2]).max() <= 8.0 * least for k in (x, y)):
        return left, bottom, right, top
    edges, places, peaks = _peaks(_reach(x, y))
    step = 1.0 / STEPS
    for _ in range(_ROUNDS):
        if not (peaks - furthest > least).any():
            break
        closer = np.clip(places[:, None] + step * (_ALONG - 0.5), 0.0, 1.0)
        level, edge = edges[:, None] % 2 == 0, edges[:, None]
        x, y = view.images(np.where(level, closer, edge == 1), np.where(level, edge == 2, closer))
        reached = _reach(x, y)[range(4), range(4)]
        best = reached.argmax(axis=1)
        places, now = closer[range(4), best], np.maximum(furthest, reached[range(4), best])
        # The next round adds a hundredth of what this one did.
        peaks, furthest, step = now + (now - furthest) / 2.0, now, 2.0 * step / STEPS
    left, bottom, right, top = (furthest * np.array([-1.0, -1.0, 1.0, 1.0])).tolist()
    return left, bottom, right, top


class _View:
    """A box as seen from another CRS."""

    def __init__(self, there: Transformer, bounds: Bounds, turn: float, middle: float) -> None:
        self._there, self._bounds, self._turn, self._middle = there, bounds, turn, middle

    def images(self, across: Floats, up: Floats) -> tuple[Floats, Floats]:
        """Return x and y of places, which are shares of the box's width and height; NaN where PROJ has no answer."""
        left, bottom, right, top = self._bounds
        x = np.minimum(left + (right - left) * across, right)
        y = np.minimum(bottom + (top - bottom) * up, top)
        x, y = self._there.transform(x, y)
        x, y = np.asarray(x), np.asarray(y)
        known = np.isfinite(x) & np.isfinite(y)
        if not known.all():
            x, y = np.where(known, x, np.nan), np.where(known, y, np.nan)
        if self._turn:
            x = x - self._turn * np.round((x - self._middle) / self._turn)
        return x, y


def _reach(x: Floats, y: Floats) -> Floats:
    """Return how far places lie to the left, below, to the right and above, along a first axis; -inf for none."""
    return np.fmax(np.stack([-x, -y, x, y]), -np.inf)


def _peaks(reached: Floats) -> tuple[Ints, Floats, Floats]:
    """Return on which edge a parabola through three neighbouring places is highest for each side, how far along it, and how high it is."""
    before, at, after = reached[..., :-2], reached[..., 1:-1], reached[..., 2:]
    with np.errstate(invalid="ignore", divide="ignore"):
        slope, curve = after - before, before - 2.0 * at + after
        shift = -0.5 * slope / curve
        peak = np.where((curve < 0.0) & (np.abs(shift) <= 1.0), at + 0.25 * shift * slope, -np.inf)
    best = peak.reshape(4, -1).argmax(axis=1)
    edges, node = best // (STEPS - 1), best % (STEPS - 1)
    found = shift[range(4), edges, node]
    places = (node + 1 + np.where(np.isfinite(found), found, 0.0)) / STEPS
    return edges, places, peak[range(4), edges, node]
