"""conv2d_grad, which returns the gradients asked for, and conv2d_grad_bias."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

import fastconv
import reference
from cases import CONV_CASES, ConvCase
from checks import (
    ALGORITHMS,
    DTYPES,
    LAYOUTS,
    Guarded,
    Layout,
    assert_same_bits,
    integer_problem,
    to,
)

NAMES = ("input", "weight", "bias")
SUBSETS = [s for count in range(4) for s in combinations(NAMES, count)]
ALL_AT_ONCE = next(case for case in CONV_CASES if case.name == "all_at_once")

layout_ = pytest.mark.parametrize("layout", LAYOUTS)
dtype_ = pytest.mark.parametrize("dtype", DTYPES)


def operands(case: ConvCase, layout: Layout, dtype: str) -> tuple[Any, Any, Any]:
    problem = integer_problem(case)
    dy, x = (to(layout, a).astype(dtype) for a in (problem.dy, problem.x))
    return dy, x, problem.w.astype(dtype)


@pytest.mark.parametrize("needs", SUBSETS, ids=lambda needs: "+".join(needs) or "none")
@layout_
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_needs_chooses_the_gradients(
    needs: tuple[str, ...], layout: Layout, algorithm: str
) -> None:
    problem = integer_problem(ALL_AT_ONCE)
    dy, x, w = operands(ALL_AT_ONCE, layout, "float32")
    keywords = {**ALL_AT_ONCE.geometry, "layout": layout, "algorithm": algorithm}
    gradients = fastconv.conv2d_grad(dy, x, w, needs=needs, **keywords)
    wants = (
        problem.exact("input", layout),
        problem.exact("weight"),
        reference.conv_grad_bias(problem.dy),
    )
    assert len(gradients) == 3
    for name, got, want in zip(NAMES, gradients, wants, strict=True):
        if name in needs:
            np.testing.assert_array_equal(got, want)
        else:
            assert got is None


@pytest.mark.parametrize("case", CONV_CASES, ids=str)
def test_all_three_equal_the_functions_for_one(case: ConvCase) -> None:
    dy, x, w = operands(case, "NCHW", "float32")
    each = (
        fastconv.conv2d_grad_input(dy, w, x.shape, **case.geometry),
        fastconv.conv2d_grad_weight(dy, x, w.shape, **case.geometry),
        fastconv.conv2d_grad_bias(dy),
    )
    for got, want in zip(fastconv.conv2d_grad(dy, x, w, **case.geometry), each, strict=True):
        assert got is not None
        assert_same_bits(got, want)


@layout_
def test_each_out_is_written_and_returned(layout: Layout) -> None:
    problem = integer_problem(ALL_AT_ONCE)
    dy, x, w = operands(ALL_AT_ONCE, layout, "float32")
    outs = [Guarded(shape, np.float32) for shape in (x.shape, w.shape, (len(w),))]
    views = (outs[0].view, outs[1].view, outs[2].view)
    got = fastconv.conv2d_grad(dy, x, w, layout=layout, out=views, **ALL_AT_ONCE.geometry)
    assert all(result is out.view for result, out in zip(got, outs, strict=True))
    np.testing.assert_array_equal(got[0], problem.exact("input", layout))
    np.testing.assert_array_equal(got[1], problem.exact("weight"))
    np.testing.assert_array_equal(got[2], reference.conv_grad_bias(problem.dy))
    for out in outs:
        out.check()


def test_out_may_be_given_for_one_gradient() -> None:
    dy, x, w = operands(ALL_AT_ONCE, "NCHW", "float32")
    out = np.empty_like(w)
    dx, dw, db = fastconv.conv2d_grad(dy, x, w, out=(None, out, None), **ALL_AT_ONCE.geometry)
    assert dw is out
    assert dx is not None
    assert db is not None


@layout_
@dtype_
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 67, 7, 9), (5, 1, 1, 1), (0, 3, 2, 4)])
@pytest.mark.usefixtures("threads")
def test_bias_gradient(
    layout: Layout, dtype: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    dy = rng.integers(-4, 5, shape).astype(dtype)
    out = Guarded(shape[1:2], dtype)
    got = fastconv.conv2d_grad_bias(to(layout, dy), layout=layout, out=out.view)
    np.testing.assert_array_equal(got, reference.conv_grad_bias(dy))
    out.check()


def test_bias_gradient_of_many_cells_is_accurate() -> None:
    """A running sum of 400,000 terms in float32 would be off by far more."""
    dy = np.full((4, 2, 300, 333), 0.1, np.float32)
    exact = reference.conv_grad_bias(dy)
    np.testing.assert_allclose(fastconv.conv2d_grad_bias(dy), exact, rtol=1e-5)


def test_an_empty_batch_gives_zero_filter_gradients() -> None:
    dy, x = np.empty((0, 4, 5, 8), np.float32), np.empty((0, 3, 7, 9), np.float32)
    w = np.ones((4, 3, 3, 2), np.float32)
    dx, dw, db = fastconv.conv2d_grad(dy, x, w)
    assert dx is not None
    assert dx.shape == x.shape
    np.testing.assert_array_equal(dw, np.zeros_like(w))
    np.testing.assert_array_equal(db, np.zeros(4))


def test_cells_that_no_filter_tap_meets_get_a_zero_gradient() -> None:
    dy, w = np.ones((1, 1, 2, 2), np.float32), np.ones((1, 1, 1, 2), np.float32)
    out = np.full((1, 1, 5, 7), np.nan, np.float32)
    fastconv.conv2d_grad_input(dy, w, (1, 1, 5, 7), stride=(3, 4), out=out)
    want = np.zeros((5, 7))
    want[[[0], [3]], [0, 1, 4, 5]] = 1
    np.testing.assert_array_equal(out[0, 0], want)
