"""conv_transpose1d/2d/3d and their gradients: geometry against the oracle, then each rule by its
name."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fastconv
import reference
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


@dataclass(frozen=True)
class Case:
    """One transposed convolution: x is (N, C, *in), w is (C, K/groups, *filter)."""

    name: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: Any = 1
    padding: Any = 0
    output_padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def __str__(self) -> str:
        return self.name

    @property
    def geometry(self) -> dict[str, Any]:
        """The keywords that every pass takes."""
        names = ("stride", "padding", "output_padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def axes(self) -> list[reference.Axis]:
        """The spatial axes as the oracle resolves them."""
        geometry = self.stride, self.padding, self.output_padding, self.dilation
        return reference.transposed_axes(self.x[2:], self.w[2:], *geometry)

    @property
    def y(self) -> tuple[int, ...]:
        """The result's shape."""
        return self.x[0], self.w[1] * self.groups, *(a.size for a in self.axes)

    def integers(self) -> tuple[Any, Any, Any, Any]:
        """x, w, bias and dy of small integers: every sum is exact."""
        rng = np.random.default_rng(31)
        shapes = (self.x, self.w, self.y[1:2], self.y)
        x, w, bias, dy = (rng.integers(-4, 5, shape).astype(float) for shape in shapes)
        return x, w, bias, dy


CASES = (
    Case("plain", (2, 3, 5, 7), (3, 4, 3, 2)),
    Case("one_image", (1, 19, 9, 13), (19, 17, 2, 3)),
    Case("doubling", (2, 17, 6, 9), (17, 18, 4, 4), 2, 1),
    Case("doubling_3x3", (2, 16, 8, 9), (16, 18, 3, 3), 2, 1, 1),
    Case("strides", (2, 5, 4, 6), (5, 7, 3, 4), (2, 3)),
    Case("stride_beyond_filter", (2, 3, 4, 5), (3, 5, 2, 3), (4, 5)),
    Case("stride_beyond_filter_padded", (2, 3, 4, 5), (3, 5, 2, 1), (4, 5), 0, (3, 4)),
    Case("four_pads", (2, 3, 6, 7), (3, 4, 4, 3), (2, 1), ((1, 2), (0, 3))),
    Case("output_padding", (2, 3, 4, 5), (3, 4, 3, 2), (3, 2), 1, (2, 1)),
    Case("output_padding_by_dilation", (2, 3, 4, 5), (3, 4, 3, 2), (1, 2), 1, (2, 3), (3, 4)),
    Case("dilations", (2, 3, 5, 4), (3, 4, 3, 2), (1, 2), 0, 0, (2, 5)),
    Case("same", (2, 3, 5, 7), (3, 4, 4, 3), (2, 3), "same"),
    Case("same_stride_beyond_filter", (2, 3, 5, 7), (3, 4, 2, 3), (4, 5), "same"),
    Case("same_lower", (2, 3, 5, 7), (3, 4, 4, 5), (3, 2), "same_lower"),
    Case("groups", (2, 6, 5, 8), (6, 3, 2, 3), (2, 1), 1, (1, 0), 1, 3),
    Case("depthwise", (2, 6, 9, 7), (6, 1, 3, 2), (1, 2), ((1, 0), (0, 1)), groups=6),
    Case("depthwise_3x3", (2, 19, 12, 10), (19, 1, 3, 3), 2, 1, 1, groups=19),
    Case("depthwise_doubled", (2, 5, 6, 8), (5, 2, 3, 4), (1, 2), groups=5),
    Case("one_by_one", (2, 5, 4, 7), (5, 3, 1, 1)),
    Case("one_by_one_halved", (2, 70, 4, 7), (70, 5, 1, 1), 2, 0, 1),
    Case("one_by_one_strided", (2, 5, 4, 7), (5, 3, 1, 1), (2, 3), 0, 1),
    Case("few_filters", (2, 33, 6, 9), (33, 2, 3, 5), 2, (1, 2), 1),
    Case("no_images", (0, 3, 5, 7), (3, 4, 3, 2)),
    Case("no_channels", (2, 0, 5, 7), (0, 4, 3, 2), 2),
    Case("no_filters", (2, 3, 5, 7), (3, 0, 3, 2)),
    Case("line", (2, 3, 19), (3, 4, 5), 2, ((2, 1),)),
    Case("line_same", (2, 17, 21), (17, 18, 4), 2, "same"),
    Case("line_dilated", (2, 4, 9), (4, 3, 3), (3,), (2,), (2,), (2,)),
    Case("line_depthwise", (2, 7, 20), (7, 1, 5), 3, 1, 2, groups=7),
    Case("volume", (2, 3, 3, 4, 5), (3, 4, 2, 3, 4), (2, 1, 3)),
    Case("volume_padded", (1, 17, 4, 3, 5), (17, 18, 3, 2, 3), 2, ((1, 0), (0, 1), (1, 1)), 1),
    Case("volume_all", (2, 4, 3, 5, 4), (4, 3, 2, 3, 2), (2, 3, 1), 1, (1, 2, 0), (2, 1, 3), 2),
)

WINOGRAD = Case("winograd", (3, 17, 12, 15), (17, 19, 3, 3), 1, ((1, 0), (2, 1)))

case_ = pytest.mark.parametrize("case", CASES, ids=str)
pass_ = pytest.mark.parametrize("which", PASSES)
layout_ = pytest.mark.parametrize("layout", LAYOUTS)


def run(case: Case, which: str, layout: Layout, dtype: str, **keywords: Any) -> tuple[Any, Any]:
    """The package's result of one pass, in `layout`, and the oracle's."""
    exact = case.integers()
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
    case: Case, which: str, layout: Layout, algorithm: str, dtype: str
) -> None:
    spatial = to(layout, np.empty(case.y if which == "forward" else case.x)).shape
    out = Guarded(case.w if which == "weight" else spatial, dtype)
    got, want = run(case, which, layout, dtype, algorithm=algorithm, out=out.view)
    assert got is out.view
    np.testing.assert_array_equal(got, want)
    out.check()


@pytest.mark.parametrize("case", [c for c in CASES if c.w[1] == 1 and c.groups == c.x[1]], ids=str)
@layout_
def test_direct_kernels(case: Case, layout: Layout) -> None:
    got, want = run(case, "forward", layout, "float32", algorithm="direct", activation="relu")
    np.testing.assert_array_equal(got, np.maximum(want, 0))


@case_
@layout_
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bias_and_relu_are_applied_once_everywhere(
    case: Case, layout: Layout, algorithm: str
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
def test_all_gradients_at_once(case: Case, layout: Layout) -> None:
    x, w, _, dy = case.integers()
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
