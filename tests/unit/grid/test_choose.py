"""The vote among sources: CRS, resolution, anchor, extent (semantics: "The cube")."""

from __future__ import annotations

import pytest

from rasteret_dask.errors import ArgumentError, EmptySelectionError, GridError
from rasteret_dask.grid.choose import (
    GridRequest,
    SourceGrid,
    choose_grid,
    parse_crs,
    parse_resolution,
)

A, B = "EPSG:32633", "EPSG:32634"


def source(
    crs: str = A,
    left: float = 500_000.0,
    top: float = 5_200_000.0,
    res: float = 10.0,
    size: tuple[int, int] = (100, 100),
    items: int = 1,
    first: str = "a",
    south_up: bool = False,
) -> SourceGrid:
    height, width = size
    affine = (
        (res, 0.0, left, 0.0, res, top - height * res)
        if south_up
        else (res, 0.0, left, 0.0, -res, top)
    )
    return SourceGrid(crs, affine, width, height, items, first)


def test_one_grid_is_kept_as_it_is() -> None:
    s = source(left=500_003.0, top=5_200_007.0)
    grid = choose_grid([s], GridRequest())
    assert grid.affine == s.affine
    assert (grid.width, grid.height, grid.crs) == (100, 100, A)


def test_the_crs_with_most_pixels_wins() -> None:
    few, many = source(A, items=1), source(B, items=2)
    assert choose_grid([few, many], GridRequest()).crs == B


def test_a_tied_vote_goes_to_the_lower_code_as_a_number() -> None:
    for order in ((A, B), (B, A)):
        assert choose_grid([source(c) for c in order], GridRequest()).crs == A
    other = "EPSG:3857"
    assert choose_grid([source(A), source(other)], GridRequest()).crs == other


def test_only_pixels_within_the_bounds_vote() -> None:
    near = source(A, left=500_000, size=(100, 100), items=1)
    far = source(B, left=900_000, size=(5000, 5000), items=9)
    request = GridRequest(bounds=(500_100, 5_199_500, 500_500, 5_199_900), bounds_crs=A)
    assert choose_grid([near, far], request).crs == A


def test_the_finest_resolution_of_the_chosen_crs() -> None:
    grid = choose_grid([source(res=20.0), source(res=10.0), source(res=60.0)], GridRequest())
    assert (grid.xres, grid.yres) == (10.0, 10.0)
    wide = source(B, res=5.0, size=(10, 10))
    assert choose_grid([source(res=20.0, size=(500, 500)), wide], GridRequest()).xres == 20.0


def test_no_resolution_follows_across_units() -> None:
    with pytest.raises(GridError, match="another unit"):
        choose_grid([source()], GridRequest(crs="EPSG:4326"))
    assert choose_grid([source()], GridRequest(crs="EPSG:3035")).xres == 10.0


def test_more_than_a_degree_is_refused() -> None:
    with pytest.raises(GridError, match="degrees"):
        choose_grid([source()], GridRequest(crs="EPSG:4326", resolution=(10.0, 10.0)))
    assert (
        choose_grid([source()], GridRequest(crs="EPSG:4326", resolution=(1e-4, 1e-4))).xres == 1e-4
    )


def test_the_phase_of_most_pixels_anchors() -> None:
    on, off = source(left=500_000.0), source(left=500_005.0, items=3)
    assert choose_grid([on, off], GridRequest()).left % 10 == 5.0
    assert choose_grid([on, off, source(items=3)], GridRequest()).left % 10 == 0.0


def test_tied_phases_go_to_the_lowest_id() -> None:
    on, off = source(left=500_000.0, first="b"), source(left=500_005.0, first="a")
    assert choose_grid([on, off], GridRequest()).left % 10 == 5.0
    assert choose_grid([off, on], GridRequest()).left % 10 == 5.0


def test_another_resolution_goes_by_its_multiples() -> None:
    grid = choose_grid(
        [source(left=500_005.0, top=5_200_005.0)], GridRequest(resolution=(30.0, 30.0))
    )
    assert grid.left % 30 == 0
    assert grid.top % 30 == 0
    left, bottom, right, top = grid.bounds
    assert left <= 500_005 < left + 30
    assert right - 30 < 501_005 <= right
    assert bottom <= 5_199_005 < bottom + 30
    assert top - 30 < 5_200_005 <= top


def test_an_anchor_that_is_given_wins() -> None:
    grid = choose_grid([source()], GridRequest(anchor=(2.5, 7.5)))
    assert grid.left % 10 == 2.5
    assert grid.top % 10 == 7.5


def test_a_south_up_source_lies_on_the_same_grid() -> None:
    up, down = source(south_up=True), source()
    assert choose_grid([up], GridRequest()) == choose_grid([down], GridRequest())


def test_a_rotated_source_needs_to_be_told() -> None:
    turned = SourceGrid(A, (7.0, 7.0, 500_000.0, 7.0, -7.0, 5_200_000.0), 100, 100, 1, "turned")
    with pytest.raises(GridError, match="rotated") as caught:
        choose_grid([turned], GridRequest())
    assert caught.value.item == "turned"
    grid = choose_grid([turned], GridRequest(resolution=(10.0, 10.0)))
    assert grid.bounds == (500_000.0, 5_199_300.0, 501_400.0, 5_200_700.0)


def test_bounds_away_from_everything() -> None:
    with pytest.raises(EmptySelectionError, match="none of the 3 sources"):
        choose_grid([source(items=3)], GridRequest(bounds=(0, 0, 1, 1), bounds_crs=A))


def test_a_lonlat_box_keeps_every_pixel_it_touches() -> None:
    grid = choose_grid([source(size=(5000, 5000))], GridRequest(bounds=(15.02, 46.6, 15.05, 46.62)))
    # pyproj's own corners of that box.
    from_corners = (501_531.0, 5_160_900.0)
    assert grid.left == 10 * (from_corners[0] // 10)
    assert grid.left % 10 == 0
    assert grid.height * 10 == pytest.approx(2223 + 10, abs=15)


@pytest.mark.parametrize(("given", "read"), [(10, (10, 10)), ((10, -20), (10, 20)), (None, None)])
def test_resolutions(given: object, read: object) -> None:
    assert parse_resolution(given) == read  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["ten", (1, 2, 3), [None, 1]])
def test_resolutions_that_mean_nothing(wrong: object) -> None:
    with pytest.raises(ArgumentError, match="resolution"):
        parse_resolution(wrong)  # type: ignore[arg-type]


def test_a_pixel_of_no_size_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no size"):
        choose_grid([source()], GridRequest(resolution=(0.0, 10.0)))


def test_native_leaves_the_choice() -> None:
    assert parse_crs("native") is None
    assert parse_crs(None) is None
    assert parse_crs(32633) == A
