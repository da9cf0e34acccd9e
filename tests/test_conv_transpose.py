"""conv_transpose1d/2d/3d and their gradients: geometry against the oracle, then each rule by its
name."""

from typing import Any

import numpy as np
import pytest

import fastconv
import reference
from cases import TRANSPOSED_CASES, TransposedCase
from checks import (
    ALGORITHMS,
    DTYPES,
    LAYOUTS,
    Guarded,
    Layout,
    assert_close,
    assert_same_bits,
    at_rank,
    op,
    refuses,
    to,
)

PASSES = ("forward", "input", "weight")


CASES = TRANSPOSED_CASES
WINOGRAD = TransposedCase("winograd", (3, 17, 12, 15), (17, 19, 3, 3), 1, ((1, 0), (2, 1)))

case_ = pytest.mark.parametrize("case", CASES, ids=str)
pass_ = pytest.mark.parametrize("which", PASSES)
layout_ = pytest.mark.parametrize("layout", LAYOUTS)


def integers(case: TransposedCase) -> tuple[Any, Any, Any, Any]:
    """x, w, bias and dy of small integers: every sum is exact."""
    rng = np.random.default_rng(31)
    shapes = (case.x, case.w, case.y[1:2], case.y)
    x, w, bias, dy = (rng.integers(-4, 5, shape).astype(float) for shape in shapes)
    return x, w, bias, dy


def run(
    case: TransposedCase, which: str, layout: Layout, dtype: str, **keywords: Any
) -> tuple[Any, Any]:
    """The package's result of one pass, in `layout`, and the oracle's."""
    exact = integers(case)
    x, w, bias, dy = (a.astype(dtype) for a in exact)
    axes = x.ndim - 2
    x, dy = to(layout, x), to(layout, dy)
    keywords = {**case.geometry, "layout": at_rank(layout, axes), **keywords}
    if which == "forward":
        want = reference.conv_transpose(*exact[:2], case.axes, exact[2], case.groups)
        return op("conv_transpose{}d", axes)(x, w, bias, **keywords), to(layout, want)
    dx, dw = reference.conv_transpose_grad(exact[3], *exact[:2], case.axes, case.groups)
    if which == "input":
        got = op("conv_transpose{}d_grad_input", axes)(dy, w, x.shape, **keywords)
        return got, to(layout, dx)
    return op("conv_transpose{}d_grad_weight", axes)(dy, x, w.shape, **keywords), dw


@case_
@pass_
@layout_
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("threads")
def test_small_integers_are_exact_and_only_the_output_is_written(
    case: TransposedCase, which: str, layout: Layout, algorithm: str, dtype: str
) -> None:
    spatial = to(layout, np.empty(case.y if which == "forward" else case.x)).shape
    out = Guarded(case.w if which == "weight" else spatial, dtype)
    got, want = run(case, which, layout, dtype, algorithm=algorithm, out=out.view)
    assert got is out.view
    np.testing.assert_array_equal(got, want)
    out.check()


@pytest.mark.parametrize("case", [c for c in CASES if c.w[1] == 1 and c.groups == c.x[1]], ids=str)
@layout_
def test_direct_kernels(case: TransposedCase, layout: Layout) -> None:
    got, want = run(case, "forward", layout, "float32", algorithm="direct", activation="relu")
    np.testing.assert_array_equal(got, np.maximum(want, 0))


@case_
@layout_
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bias_and_relu_are_applied_once_everywhere(
    case: TransposedCase, layout: Layout, algorithm: str
) -> None:
    """Also to the cells that no tap reaches."""
    got, want = run(case, "forward", layout, "float32", activation="relu", algorithm=algorithm)
    np.testing.assert_array_equal(got, np.maximum(want, 0))


@layout_
@pytest.mark.parametrize("which", ["forward", "input"])
def test_winograd_has_bias_and_relu_within_its_bound(layout: Layout, which: str) -> None:
    relu: dict[str, Any] = {"activation": "relu"} if which == "forward" else {}
    got, want = run(WINOGRAD, which, layout, "float32", algorithm="winograd", **relu)
    assert_close(got, np.maximum(want, 0) if relu else want, 50.0, 1)


@case_
@layout_
def test_all_gradients_at_once(case: TransposedCase, layout: Layout) -> None:
    x, w, _, dy = integers(case)
    axes = x.ndim - 2
    want = (*reference.conv_transpose_grad(dy, x, w, case.axes, case.groups), None)
    keywords = {**case.geometry, "layout": at_rank(layout, axes)}
    got = op("conv_transpose{}d_grad", axes)(to(layout, dy), to(layout, x), w, **keywords)
    np.testing.assert_array_equal(got[0], to(layout, want[0]))
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_array_equal(got[2], reference.conv_grad_bias(dy))
    some = op("conv_transpose{}d_grad", axes)(
        to(layout, dy), to(layout, x), w, needs=("weight",), **keywords
    )
    assert some[0] is None
    assert some[2] is None
    assert_same_bits(some[1], got[1])


def test_it_is_the_adjoint_of_conv() -> None:
    """<conv_transpose(x, w), y> = <x, conv(y, w)> for the same keywords."""
    rng = np.random.default_rng(1)
    geometry: dict[str, Any] = {"stride": (2, 3), "padding": ((1, 0), (2, 1)), "dilation": (1, 2)}
    y, w = rng.standard_normal((2, 4, 11, 20)), rng.standard_normal((6, 2, 3, 4))
    down = fastconv.conv2d(y, w, **geometry, groups=2)
    x = rng.standard_normal(down.shape)
    spare = tuple(
        n - m
        for n, m in zip(
            y.shape[2:],
            fastconv.conv_transpose2d(x, w, **geometry, groups=2).shape[2:],
            strict=True,
        )
    )
    up = fastconv.conv_transpose2d(x, w, **geometry, groups=2, output_padding=spare)
    assert up.shape == y.shape
    assert np.sum(up * y) == pytest.approx(np.sum(x * down), rel=1e-12)
    np.testing.assert_array_equal(
        up, fastconv.conv2d_grad_input(x, w, y.shape, **geometry, groups=2)
    )


@pytest.mark.parametrize("word", ["same", "same_lower"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_same_gives_stride_cells_for_every_input(word: str, stride: int, size: int) -> None:
    x, w = np.ones((1, 2, size, size + 1), np.float32), np.ones((2, 3, 4, 2), np.float32)
    y = fastconv.conv_transpose2d(x, w, stride=stride, padding=word)
    assert y.shape == (1, 3, size * stride, (size + 1) * stride)
    back = fastconv.conv2d(y, np.ones((2, 3, 4, 2), np.float32), stride=stride, padding=word)
    assert back.shape == x.shape


X, W = np.ones((2, 3, 5, 7), np.float32), np.ones((3, 4, 3, 2), np.float32)
DY = np.ones((2, 4, 7, 8), np.float32)
up: Any = fastconv.conv_transpose2d


@pytest.mark.parametrize(
    ("call", "kind", "parts"),
    [
        (lambda: up(X.tolist(), W), TypeError, ("x", "list")),
        (lambda: up(X, W.astype(float)), TypeError, ("w", "float64", "float32")),
        (lambda: up(X[0], W), ValueError, ("x", "(3, 5, 7)", "x[None]")),
        (lambda: up(X, W[0]), ValueError, ("w", "C, K/groups, R, S", "(4, 3, 2)")),
        (lambda: up(X, W[:2]), ValueError, ("3", "2", "(2, 3, 5, 7)", "(2, 4, 3, 2)")),
        (lambda: up(X, W, groups=2), ValueError, ("groups", "2", "3")),
        (lambda: up(X, W, groups=0), ValueError, ("groups", "0")),
        (lambda: up(X, W, np.ones(3, np.float32)), ValueError, ("bias", "(3,)", "(4,)")),
        (lambda: up(X, W, output_padding=1), ValueError, ("output_padding", "1", "stride")),
        (lambda: up(X, W, output_padding=-1), ValueError, ("output_padding", "-1")),
        (lambda: up(X, W, stride=2, output_padding=2), ValueError, ("output_padding", "2")),
        (
            lambda: up(X, W, stride=2, padding="same", output_padding=1),
            ValueError,
            ("output_padding", "same"),
        ),
        (lambda: up(X, W, padding=4), ValueError, ("height", "padding", "(2, 3, 5, 7)")),
        (lambda: up(X, W, padding="full"), ValueError, ("padding", "full")),
        (lambda: up(X, W, stride=0), ValueError, ("stride", "0")),
        (lambda: up(X, W[:, :, :0]), ValueError, ("w", "(3, 4, 0, 2)")),
        (lambda: up(X[:, :, :0], W), ValueError, ("height", "(2, 3, 0, 7)")),
        (lambda: up(X, W, activation="tanh"), ValueError, ("activation", "tanh")),
        (lambda: up(X, W, algorithm="winograd"), ValueError, ("algorithm", "winograd", "implicit")),
        (lambda: up(X, W, precision="tf32"), ValueError, ("precision", "tf32")),
        (lambda: up(X, W, out=X), ValueError, ("out", "x")),
        (lambda: up(X, W, out=DY[:, :3]), ValueError, ("out", "(2, 3, 7, 8)", "(2, 4, 7, 8)")),
        (
            lambda: fastconv.conv_transpose2d_grad_input(DY[..., :7], W, X.shape),
            ValueError,
            ("dy", "(2, 4, 7, 7)", "(2, 4, 7, 8)"),
        ),
        (
            lambda: fastconv.conv_transpose2d_grad_input(DY, W, (3, 5, 7)),
            ValueError,
            ("input_shape", "(3, 5, 7)"),
        ),
        (
            lambda: fastconv.conv_transpose2d_grad_weight(DY, X, (3, 4, 3, 3)),
            ValueError,
            ("dy", "(2, 4, 7, 8)", "(2, 4, 7, 9)"),
        ),
        (
            lambda: fastconv.conv_transpose2d_grad(DY, X, W, needs=("weights",)),
            ValueError,
            ("needs", "weight"),
        ),
        (
            lambda: fastconv.conv_transpose2d_grad(DY, X, W, out=(X, None, None)),
            ValueError,
            ("out", "x"),
        ),
    ],
)
def test_wrong_input(call: Any, kind: type[Exception], parts: tuple[str, ...]) -> None:
    with refuses(kind, *parts):
        call()


@pytest.mark.parametrize("keywords", [{"stride": 2**31 - 1}, {"dilation": 2**31 - 1}])
def test_geometry_beyond_the_machine_is_an_error(keywords: dict[str, Any]) -> None:
    x = np.broadcast_to(np.float32(0), (1, 3, 2**20, 2**20))
    with pytest.raises((ValueError, MemoryError)):
        up(x, W, **keywords)
