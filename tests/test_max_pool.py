"""Max-pooling over lines and volumes, over whole inputs, and of integers, against the oracle."""

from typing import Any

import numpy as np
import pytest

import fastconv
import reference
from cases import (
    POOL_CASES,
    POOL_LINE_CASES,
    POOL_VOLUME_CASES,
    PoolCase,
    random_pool_cases,
)
from checks import (
    DTYPES,
    LAYOUTS,
    Guarded,
    Layout,
    assert_same_bits,
    at_rank,
    channels_first,
    op,
    to,
)

INTEGERS = ("int8", "uint8", "int32", "int64")
OTHER_RANKS = [
    *POOL_LINE_CASES,
    *POOL_VOLUME_CASES,
    *random_pool_cases(30, seed=41, axes=1),
    *random_pool_cases(30, seed=42, axes=3),
]
WIDE = (  # more columns in the one window of a row than lanes, padding and dilation among them
    PoolCase("one_output_a_row", (2, 3, 4, 600), (2, 600)),
    PoolCase("one_padded_output_a_row", (2, 3, 5, 70), (3, 80), 1, ((1, 0), (6, 4))),
    PoolCase("one_dilated_output_a_row", (2, 3, 4, 33), (2, 11), 1, (0, 4), (1, 4)),
    PoolCase("one_line", (2, 3, 300), 300),
)
WHOLE = ((37,), (7, 9), (1, 1), (40, 300), (3, 5, 20))  # spatial shapes of global pools

layout_ = pytest.mark.parametrize("layout", LAYOUTS)


def values(shape: tuple[int, ...], dtype: str) -> Any:
    """Many ties; among floats some NaN and -inf, among integers the extremes of the type."""
    rng = np.random.default_rng(5)
    x = rng.integers(0, 5, shape).astype(dtype)
    if x.dtype.kind == "f":
        x[rng.random(shape) < 0.02] = np.nan
        x[rng.random(shape) < 0.3] = -np.inf
        return x
    limits = np.iinfo(dtype)
    x[rng.random(shape) < 0.02] = limits.max
    x[rng.random(shape) < 0.5] = limits.min
    return x


def check(case: PoolCase, layout: Layout, dtype: str) -> None:
    """Values, indices and values alone equal the oracle's; nothing else is written."""
    x, axes = values(case.x, dtype), len(case.x) - 2
    want, want_indices = reference.max_pool(x, case.kernel_size, **case.geometry)
    keywords = {**case.geometry, "layout": at_rank(layout, axes)}
    y, indices = op("max_pool{}d", axes)(
        to(layout, x), case.kernel_size, return_indices=True, **keywords
    )
    assert y.dtype == dtype
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(channels_first(layout, y), want)
    np.testing.assert_array_equal(channels_first(layout, indices), want_indices)
    alone = op("max_pool{}d", axes)(to(layout, x), case.kernel_size, **keywords)
    assert_same_bits(alone, y)


@pytest.mark.parametrize("case", [*OTHER_RANKS, *WIDE], ids=str)
@layout_
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("threads")
def test_lines_and_volumes(case: PoolCase, layout: Layout, dtype: str) -> None:
    check(case, layout, dtype)


@pytest.mark.parametrize(
    "case", [*POOL_CASES, *POOL_LINE_CASES, *POOL_VOLUME_CASES, *WIDE], ids=str
)
@layout_
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_padded_with_their_minimum(case: PoolCase, layout: Layout, dtype: str) -> None:
    check(case, layout, dtype)


@pytest.mark.parametrize("dtype", INTEGERS)
@layout_
def test_integers_of_any_strides_into_any_strides(dtype: str, layout: Layout) -> None:
    x = np.repeat(values((2, 5, 9, 40), dtype), 2, axis=3)[:, :, ::-1, ::2]
    want, _ = reference.max_pool(x, 3, stride=2, padding=1)
    larger = np.zeros([2 * n for n in to(layout, want).shape], dtype)
    out = larger[::2, ::-2, 1::2, ::2]
    view = x if layout == "NCHW" else np.moveaxis(x, 1, -1)
    assert fastconv.max_pool2d(view, 3, stride=2, padding=1, layout=layout, out=out) is out
    np.testing.assert_array_equal(channels_first(layout, out), want)


def test_integers_of_64_bits_are_compared_exactly() -> None:
    """2**53 + 1 and 2**53 are one float64."""
    x = np.array([[[[2**53, 2**53 + 1, -(2**63), 2**63 - 1]]]], np.int64)
    y, indices = fastconv.max_pool2d(x, (1, 2), return_indices=True)
    np.testing.assert_array_equal(y, [[[[2**53 + 1, 2**63 - 1]]]])
    np.testing.assert_array_equal(indices, [[[[1, 3]]]])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "uint64", "bool", "float16"])
def test_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match=rf"x has dtype {dtype}, expected float32, .*int64"):
        fastconv.max_pool2d(np.ones((1, 2, 4, 4), dtype), 2)


@pytest.mark.parametrize("case", OTHER_RANKS, ids=str)
@layout_
def test_gradients_over_lines_and_volumes(case: PoolCase, layout: Layout) -> None:
    axes = len(case.x) - 2
    y, indices = reference.max_pool(values(case.x, "float32"), case.kernel_size, **case.geometry)
    dy = np.random.default_rng(6).integers(-4, 5, y.shape).astype(np.float32)
    out = Guarded(to(layout, np.empty(case.x)).shape, "float32")
    dx = op("max_pool{}d_grad", axes)(
        to(layout, dy),
        to(layout, indices),
        out.view.shape,
        layout=at_rank(layout, axes),
        out=out.view,
    )
    assert dx is out.view
    want = reference.max_pool_grad(dy, indices, case.x)
    np.testing.assert_array_equal(channels_first(layout, dx), want)
    out.check()


@pytest.mark.parametrize("size", WHOLE)
@layout_
@pytest.mark.parametrize("dtype", [*DTYPES, *INTEGERS])
def test_global_maxima(size: tuple[int, ...], layout: Layout, dtype: str) -> None:
    x, axes = values((2, 5, *size), dtype), len(size)
    name = at_rank(layout, axes)
    want, want_indices = reference.max_pool(x, size)
    y, indices = op("global_max_pool{}d", axes)(to(layout, x), layout=name, return_indices=True)
    np.testing.assert_array_equal(channels_first(layout, y), want)
    np.testing.assert_array_equal(channels_first(layout, indices), want_indices)
    assert_same_bits(op("global_max_pool{}d", axes)(to(layout, x), layout=name), y)


@layout_
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gradients_of_global_maxima(axes: int, layout: Layout) -> None:
    size, name = (4, 5, 6)[:axes], at_rank(layout, axes)
    x = values((2, 3, *size), "float64")
    y, indices = op("global_max_pool{}d", axes)(to(layout, x), layout=name, return_indices=True)
    dy = np.random.default_rng(6).integers(1, 5, y.shape).astype(float)
    dx = op("global_max_pool{}d_grad", axes)(dy, indices, to(layout, x).shape, layout=name)
    want = reference.max_pool_grad(
        channels_first(layout, dy), channels_first(layout, indices), x.shape
    )
    np.testing.assert_array_equal(channels_first(layout, dx), want)


def test_global_maxima_refuse_what_a_pool_refuses() -> None:
    x = np.ones((2, 3, 4, 5), np.float32)
    with pytest.raises(ValueError, match=r"add a batch axis with x\[None\]"):
        fastconv.global_max_pool2d(x[0])
    with pytest.raises(ValueError, match="output would have no height"):
        fastconv.global_max_pool2d(x[:, :, :0])
    with pytest.raises(ValueError, match="out shares memory with x"):
        fastconv.global_max_pool2d(x, out=x[:, :, :1, :1])


# More taps than tables are made for: several outputs, one, and one of padded, dilated windows.
LARGE = (
    PoolCase("several_outputs", (2, 3, 262, 260), (257, 256), (2, 3), ((1, 0), (2, 1))),
    PoolCase("one_output", (1, 70, 260, 261), (258, 259), 7),
    PoolCase("one_dilated_output", (2, 2, 3, 260, 530), (3, 259, 265), 9, 1, (1, 1, 2)),
    PoolCase("more_padding_than_cells", (1, 2, 1, 70000), (1, 131000), (1, 40000), (0, 65500)),
)


@pytest.mark.parametrize("case", LARGE, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@layout_
def test_windows_too_large_for_tables(case: PoolCase, layout: Layout, dtype: str) -> None:
    x, axes = values(case.x, dtype), len(case.x) - 2
    y, indices = (
        channels_first(layout, a)
        for a in op("max_pool{}d", axes)(
            to(layout, x),
            case.kernel_size,
            return_indices=True,
            layout=at_rank(layout, axes),
            **case.geometry,
        )
    )
    numbers = np.arange(np.prod(x.shape[2:])).reshape(x.shape[2:])
    for at in np.ndindex(*(a.out for a in case.axes)):
        window = tuple(real_cells(a, o) for a, o in zip(case.axes, at, strict=True))
        cells = x[(..., *window)].reshape(*x.shape[:2], -1)
        best = cells.argmax(axis=-1)  # NumPy's is the first NaN, or the first of the largest
        want = np.take_along_axis(cells, best[..., None], -1)[..., 0]
        np.testing.assert_array_equal(y[(..., *at)], want)
        np.testing.assert_array_equal(indices[(..., *at)], numbers[window].ravel()[best])


def real_cells(axis: reference.Axis, o: int) -> slice:
    """The cells of the input in output o's window."""
    first = o * axis.stride - axis.before
    begin = first if first >= 0 else first % axis.dilation
    return slice(begin, min(axis.size, first + (axis.taps - 1) * axis.dilation + 1), axis.dilation)
