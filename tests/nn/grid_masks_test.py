"""Masks against tables drawn by hand, and caches against the masks."""

import numpy as np
import pytest

from mmjax.errors import UserError
from mmjax.nn import grid_masks

GRIDS = [1, 2, 4, 5]

# 4 x 4 tokens, one line a query, x where it sees a key: figure 11 of the paper.
ROW = """
x...............
xx..............
xxx.............
xxxx............
xxxxx...........
.xxxxx..........
..xxxxx.........
...xxxxx........
....xxxxx.......
.....xxxxx......
......xxxxx.....
.......xxxxx....
........xxxxx...
.........xxxxx..
..........xxxxx.
...........xxxxx
"""
COLUMN = """
x...............
.x..............
..x.............
...x............
x...x...........
.x...x..........
..x...x.........
...x...x........
x...x...x.......
.x...x...x......
..x...x...x.....
...x...x...x....
x...x...x...x...
.x...x...x...x..
..x...x...x...x.
...x...x...x...x
"""
CONV_3 = """
x...............
xx..............
.xx.............
x.xx............
xx.xx...........
xxx.xx..........
.xxx.xx.........
..xxx.xx........
...xxx.xx.......
....xxx.xx......
.....xxx.xx.....
......xxx.xx....
.......xxx.xx...
........xxx.xx..
.........xxx.xx.
..........xxx.xx
"""


@pytest.mark.parametrize(
    ("kind", "drawn"), [("row", ROW), ("column", COLUMN), ("conv", CONV_3)]
)
def test_masks_are_those_drawn(kind: str, drawn: str):
    want = np.array([[c == "x" for c in line] for line in drawn.split()])
    np.testing.assert_array_equal(grid_masks.image_mask(kind, 4, 3), want)


def _sees(kind: str, grid: int, kernel: int, query: int, key: int) -> bool:
    """The definitions again, one pair at a time, in words of rows and columns."""
    (row_q, col_q), (row_k, col_k) = divmod(query, grid), divmod(key, grid)
    if key > query:
        return False
    if kind == "full":
        return True
    if kind == "row":
        same_row = row_k == row_q
        return same_row or (row_k == row_q - 1 and col_k >= col_q)
    if kind == "column":
        return col_k == col_q
    half = kernel // 2
    spots = [(r, c) for r in range(-half, 1) for c in range(-half, half + 1)]
    return key in [query + r * grid + c for r, c in spots]


@pytest.mark.parametrize("kind", grid_masks.KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_masks_pair_by_pair(kind: str, grid: int):
    for kernel in (1, 3, 5, 11):
        n = range(grid * grid)
        want = [[_sees(kind, grid, kernel, q, k) for k in n] for q in n]
        got = grid_masks.image_mask(kind, grid, kernel)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", grid_masks.KINDS)
def test_image_sees_all_text_and_text_sees_no_image(kind: str):
    text, grid = 6, 4
    mask_tt = grid_masks.sequence_mask(kind, text, grid, 3)
    assert mask_tt[text:, :text].all() and not mask_tt[:text, text:].any()
    np.testing.assert_array_equal(mask_tt[:text, :text], np.tri(text, dtype=bool))
    image_nn = grid_masks.image_mask(kind, grid, 3)
    np.testing.assert_array_equal(mask_tt[text:, text:], image_nn)
    assert mask_tt.diagonal().all()


@pytest.mark.parametrize("kind", grid_masks.KINDS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kernel", [1, 3, 11])
def test_caches_hold_just_what_masks_show(kind: str, grid: int, kernel: int):
    plan = grid_masks.cache_plan(kind, grid, kernel)
    held: dict[int, int] = {}
    for i, seen_n in enumerate(grid_masks.image_mask(kind, grid, kernel)):
        held[int(plan.slot_n[i])] = i
        read = int(plan.start_n[i]) + np.flatnonzero(plan.visible_ns[i])
        assert sorted(held[int(s)] for s in read) == list(np.flatnonzero(seen_n))
        after = grid_masks.held_after(plan, i + 1)
        assert {s: int(after[s]) for s in held} == held
        assert (after >= 0).sum() == len(held)


def test_caches_are_small():
    plans = {k: grid_masks.cache_plan(k, 32) for k in grid_masks.KINDS}
    assert {k: (p.slots, p.window) for k, p in plans.items()} == {
        "full": (1024, 1024),
        "row": (33, 33),
        "column": (1024, 32),
        "conv": (5 * 32 + 5 + 1, 5 * 32 + 5 + 1),
    }


def test_order_of_the_paper():
    kinds = grid_masks.layer_kinds("paper", 64)
    assert kinds[:7] == ("row", "column", "row", "row", "row", "column", "row")
    assert kinds[-1] == "conv" and kinds.count("conv") == 1
    assert [i for i, k in enumerate(kinds, 1) if k == "column"] == [*range(2, 64, 4)]
    assert grid_masks.layer_kinds("row", 3) == ("row",) * 3
    assert grid_masks.layer_kinds(("row", "full"), 2) == ("row", "full")


@pytest.mark.parametrize(
    ("masks", "depth", "message"),
    [
        ("colum", 2, "did you mean 'column'"),
        (("row", "rows"), 2, "did you mean 'row'"),
        (("row", "full"), 3, "names 2 layers and the model has 3"),
    ],
)
def test_bad_masks_are_named(masks, depth: int, message: str):
    with pytest.raises(UserError, match=message):
        grid_masks.layer_kinds(masks, depth)


def test_an_even_kernel_has_no_middle():
    with pytest.raises(UserError, match="conv_kernel is 4.*use 3 or 5"):
        grid_masks.image_mask("conv", 4, 4)
