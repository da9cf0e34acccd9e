"""Average, sum, adaptive and global pooling with their gradients: geometry against the oracle, then
each rule by its name."""

from typing import Any

import numpy as np
import pytest

import fastconv
import reference
from cases import (
    DEEP_PADS,
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
    assert_close,
    at_rank,
    channels_first,
    op,
    refuses,
    same_bits,
    to,
)

CASES = [
    *DEEP_PADS,
    *(c for c in (*POOL_CASES, *POOL_LINE_CASES, *POOL_VOLUME_CASES) if c.dilation == 1),
    *random_pool_cases(40, seed=21, dilated=False),
    *random_pool_cases(20, seed=22, axes=1, dilated=False),
    *random_pool_cases(20, seed=23, axes=3, dilated=False),
]
DIVISORS: dict[str, dict[str, Any]] = {
    "padded": {},
    "real": {"count_include_pad": False},
    "fixed": {"divisor_override": 3},
}
# The input's shape without batch and channels, and the output's.
EVEN = (
    ((9,), (4,)),
    ((7,), (7,)),
    ((5,), (8,)),
    ((8, 12), (4, 3)),
    ((7, 13), (3, 5)),
    ((1, 9), (2, 9)),
    ((5, 6, 7), (2, 6, 3)),
    ((4, 3, 5), (1, 2, 7)),
)
WHOLE = ((37,), (7, 9), (56, 41), (1, 1), (3, 5, 70))  # spatial shapes of global pools

layout_ = pytest.mark.parametrize("layout", LAYOUTS)
dtype_ = pytest.mark.parametrize("dtype", DTYPES)
case_ = pytest.mark.parametrize("case", CASES, ids=str)
divisor_ = pytest.mark.parametrize("divisor", DIVISORS.values(), ids=DIVISORS.keys())


def integers(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    """Small integers: their sums are exact, and a quotient of two is rounded once."""
    return np.random.default_rng(5).integers(-4, 5, shape).astype(dtype)


def geometry(case: PoolCase) -> dict[str, Any]:
    """The keywords of an average, which has no dilation."""
    return {key: value for key, value in case.geometry.items() if key != "dilation"}


@case_
@divisor_
@layout_
@dtype_
@pytest.mark.usefixtures("threads")
def test_averages_equal_the_oracle(
    case: PoolCase, divisor: dict[str, Any], layout: Layout, dtype: str
) -> None:
    x = integers(case.x, dtype)
    want = reference.avg_pool(x, case.kernel_size, **geometry(case), **divisor)
    out = Guarded(to(layout, want).shape, dtype)
    y = op("avg_pool{}d", x.ndim - 2)(
        to(layout, x),
        case.kernel_size,
        layout=at_rank(layout, x.ndim - 2),
        out=out.view,
        **geometry(case),
        **divisor,
    )
    assert y is out.view
    np.testing.assert_array_equal(channels_first(layout, y), want.astype(dtype))
    out.check()


@case_
@divisor_
@layout_
@dtype_
@pytest.mark.usefixtures("threads")
def test_gradients_equal_the_oracle(
    case: PoolCase, divisor: dict[str, Any], layout: Layout, dtype: str
) -> None:
    dy = integers((*case.x[:2], *(a.out for a in case.axes)), dtype)
    want = reference.avg_pool_grad(dy, case.x, case.kernel_size, **geometry(case), **divisor)
    out = Guarded(to(layout, want).shape, dtype)
    dx = op("avg_pool{}d_grad", dy.ndim - 2)(
        to(layout, dy),
        out.view.shape,
        case.kernel_size,
        layout=at_rank(layout, dy.ndim - 2),
        out=out.view,
        **geometry(case),
        **divisor,
    )
    assert dx is out.view
    windows = int(np.prod([-(-a.taps // a.stride) for a in case.axes]))
    assert_close(channels_first(layout, dx), want, 1.0, windows + 2)
    out.check()


@case_
@layout_
def test_sums_and_their_gradients_are_exact(case: PoolCase, layout: Layout) -> None:
    x, axes = integers(case.x), len(case.x) - 2
    keywords = {**geometry(case), "layout": at_rank(layout, axes)}
    want = reference.avg_pool(x, case.kernel_size, **geometry(case), divisor_override=1)
    y = op("sum_pool{}d", axes)(to(layout, x), case.kernel_size, **keywords)
    np.testing.assert_array_equal(channels_first(layout, y), want)
    assert y.dtype == np.float32

    dy = integers(want.shape)
    want = reference.avg_pool_grad(
        dy, case.x, case.kernel_size, **geometry(case), divisor_override=1
    )
    dx = op("sum_pool{}d_grad", axes)(
        to(layout, dy), to(layout, x).shape, case.kernel_size, **keywords
    )
    np.testing.assert_array_equal(channels_first(layout, dx), want)


@pytest.mark.parametrize(("size", "outs"), EVEN)
@layout_
@dtype_
@pytest.mark.usefixtures("threads")
def test_adaptive_averages_and_their_gradients(
    size: tuple[int, ...], outs: tuple[int, ...], layout: Layout, dtype: str
) -> None:
    x, dy = integers((2, 5, *size), dtype), integers((2, 5, *outs), dtype)
    name, axes = at_rank(layout, len(size)), len(size)
    y = op("adaptive_avg_pool{}d", axes)(to(layout, x), outs, layout=name)
    want = reference.adaptive_avg_pool(x, outs)
    np.testing.assert_array_equal(channels_first(layout, y), want.astype(dtype))
    dx = op("adaptive_avg_pool{}d_grad", axes)(to(layout, dy), to(layout, x).shape, layout=name)
    want = reference.adaptive_avg_pool_grad(dy, x.shape)
    assert_close(
        channels_first(layout, dx), want, 1.0, 4 * int(np.prod(np.ceil(outs / np.array(size))))
    )


@pytest.mark.parametrize("size", WHOLE)
@pytest.mark.parametrize("channels", [1, 3, 300])
@layout_
@dtype_
@pytest.mark.usefixtures("threads")
def test_global_averages_and_their_gradients(
    size: tuple[int, ...], channels: int, layout: Layout, dtype: str
) -> None:
    x = integers((2, channels, *size), dtype)
    dy = integers((2, channels, *(1,) * len(size)), dtype)
    name, axes = at_rank(layout, len(size)), len(size)
    y = op("global_avg_pool{}d", axes)(to(layout, x), layout=name)
    np.testing.assert_array_equal(
        channels_first(layout, y), reference.adaptive_avg_pool(x, 1).astype(dtype)
    )
    dx = op("global_avg_pool{}d_grad", axes)(to(layout, dy), to(layout, x).shape, layout=name)
    want = reference.adaptive_avg_pool_grad(dy, x.shape)
    assert_close(channels_first(layout, dx), want, 1.0, 2)


@pytest.mark.parametrize("size", [(300, 400), (1, 90_001)])
@layout_
def test_a_global_average_of_many_cells_is_accurate(size: tuple[int, ...], layout: Layout) -> None:
    x = np.random.default_rng(7).random((1, 2, *size), np.float32)
    y = fastconv.global_avg_pool2d(to(layout, x), layout=layout)
    exact = x.mean(axis=(2, 3), keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(channels_first(layout, y), exact, rtol=2e-5)


VIEWS: dict[str, Any] = {
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "every_second": lambda a: np.repeat(np.repeat(a, 2, axis=1), 2, axis=-1)[:, ::2, ..., ::2],
    "reversed": lambda a: np.ascontiguousarray(a[..., ::-1, ::-1])[..., ::-1, ::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1, :1], a.shape),
}


@layout_
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_any_strides(view: Any, layout: Layout) -> None:
    x = view(to(layout, integers((3, 5, 9, 20))))
    full = np.ascontiguousarray(x)
    keywords: dict[str, Any] = {"stride": (2, 1), "padding": 1, "layout": layout}
    y = fastconv.avg_pool2d(full, 3, **keywords)
    np.testing.assert_array_equal(fastconv.avg_pool2d(x, 3, **keywords), y)
    whole = fastconv.global_avg_pool2d(full, layout=layout)
    np.testing.assert_array_equal(fastconv.global_avg_pool2d(x, layout=layout), whole)
    dy = view(integers(y.shape))
    dx = fastconv.sum_pool2d_grad(np.ascontiguousarray(dy), x.shape, 3, **keywords)
    np.testing.assert_array_equal(fastconv.sum_pool2d_grad(dy, x.shape, 3, **keywords), dx)
    out = np.full([2 * n for n in x.shape], np.nan, np.float32)[::2, ::-2, 1::2, ::2]
    np.testing.assert_array_equal(fastconv.sum_pool2d_grad(dy, x.shape, 3, **keywords, out=out), dx)


def pool(rows: list[list[float]], kernel_size: Any, **keywords: Any) -> Any:
    """Pool one plane and return the plane of averages."""
    return fastconv.avg_pool2d(np.array(rows, np.float32)[None, None], kernel_size, **keywords)[
        0, 0
    ]


def test_count_include_pad_counts_the_padding() -> None:
    y = pool([[2, 4, 6]], (1, 2), stride=1, padding=(0, 1))
    np.testing.assert_array_equal(y, [[1, 3, 5, 3]])


def test_without_count_include_pad_only_real_cells_count() -> None:
    y = pool([[2, 4, 6]], (1, 2), stride=1, padding=(0, 1), count_include_pad=False)
    np.testing.assert_array_equal(y, [[2, 3, 5, 6]])


def test_cells_that_only_ceil_mode_adds_never_count() -> None:
    """The last window is cells 4, the pad, and one beyond it."""
    keywords: dict[str, Any] = {"stride": (1, 2), "padding": ((0, 0), (1, 1)), "ceil_mode": True}
    rows: list[list[float]] = [[1, 2, 3, 4, 6]]
    np.testing.assert_array_equal(
        pool(rows, (1, 4), **keywords)[0], np.array([6 / 4, 15 / 4, 10 / 3], np.float32)
    )
    real = pool(rows, (1, 4), **keywords, count_include_pad=False)
    np.testing.assert_array_equal(real[0], [6 / 3, 15 / 4, 10 / 2])


def test_a_window_without_a_real_cell_averages_to_zero_and_has_no_gradient() -> None:
    """Unlike a maximum, an average may be padded by more than half its window."""
    keywords: dict[str, Any] = {"stride": 2, "padding": ((0, 0), (2, 4))}
    y = pool([[2, 4, 6]], (1, 2), **keywords, count_include_pad=False)
    np.testing.assert_array_equal(y, [[0, 3, 6, 0]])
    np.testing.assert_array_equal(pool([[2, 4, 6]], (1, 2), **keywords), [[0, 3, 3, 0]])
    rows = pool([[3, 7]], 1, stride=(1, 2), padding=((1, 1), (0, 0)), count_include_pad=False)
    np.testing.assert_array_equal(rows, [[0], [3], [0]])
    dy = np.array([[[[8, 4, 2, 8]]]], np.float32)
    for layout in LAYOUTS:
        dx = fastconv.avg_pool2d_grad(
            to(layout, dy),
            (1, 1, 1, 3) if layout == "NCHW" else (1, 1, 3, 1),
            (1, 2),
            **keywords,
            count_include_pad=False,
            layout=layout,
        )
        np.testing.assert_array_equal(dx.ravel(), [2, 2, 2])


@pytest.mark.parametrize("divisor", [5, -2, 2**40])
def test_divisor_override_replaces_both(divisor: int) -> None:
    keywords: dict[str, Any] = {"stride": 1, "padding": (0, 1), "divisor_override": divisor}
    for count in (True, False):
        y = pool([[2, 4, 6]], (1, 2), **keywords, count_include_pad=count)
        np.testing.assert_array_equal(
            y, np.array([[2, 6, 10, 6]], np.float32) / np.float32(divisor)
        )


@layout_
def test_nan_and_infinity_reach_the_windows_that_hold_them_alone(layout: Layout) -> None:
    x = np.ones((1, 2, 6, 40), np.float32)
    x[0, 0, 2, 7], x[0, 1, 3, 30], x[0, 1, 4, 31] = np.nan, np.inf, -np.inf
    y = channels_first(layout, fastconv.avg_pool2d(to(layout, x), 3, stride=1, layout=layout))
    with np.errstate(invalid="ignore"):  # inf - inf
        want = reference.avg_pool(x, 3, stride=1)
    assert 0 < np.isfinite(want).sum() < want.size
    np.testing.assert_array_equal(y, want.astype(np.float32))


@case_
@layout_
def test_the_gradient_is_the_adjoint(case: PoolCase, layout: Layout) -> None:
    rng, axes = np.random.default_rng(9), len(case.x) - 2
    x = to(layout, rng.standard_normal(case.x))
    keywords = {**geometry(case), "layout": at_rank(layout, axes), "count_include_pad": False}
    y = op("avg_pool{}d", axes)(x, case.kernel_size, **keywords)
    dy = rng.standard_normal(y.shape)
    dx = op("avg_pool{}d_grad", axes)(dy, x.shape, case.kernel_size, **keywords)
    size = np.abs(y * dy).sum() + np.abs(x * dx).sum()
    assert np.sum(x * dx) == pytest.approx(np.sum(y * dy), rel=0, abs=1e-13 * size)


@layout_
def test_the_same_bits_on_any_number_of_threads(layout: Layout) -> None:
    x = np.random.default_rng(3).standard_normal((3, 70, 33, 41)).astype(np.float32)
    x = to(layout, x)
    results = []
    for count in (1, 2, 3, 5):
        with fastconv.num_threads(count):
            y = fastconv.avg_pool2d(x, 3, stride=2, padding=1, layout=layout)
            dx = fastconv.avg_pool2d_grad(y, x.shape, 3, stride=2, padding=1, layout=layout)
            results.append((y, dx, fastconv.global_avg_pool2d(x, layout=layout)))
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


def test_averages_of_large_planes_round_little() -> None:
    """A float32 sum of 16 million cells would be off by some units in the sixth place."""
    x = np.random.default_rng(4).random((1, 1, 4000, 4001), np.float32)
    y = fastconv.global_avg_pool2d(x)
    assert y[0, 0, 0, 0] == pytest.approx(x.mean(dtype=float), rel=3e-7)


X = np.ones((2, 3, 5, 7), np.float32)
Y = np.ones((2, 3, 2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "kind", "parts"),
    [
        (lambda: fastconv.avg_pool2d(X.tolist(), 2), TypeError, ("x", "list")),
        (lambda: fastconv.avg_pool2d(X.astype(int), 2), TypeError, ("x", "int64", "float32")),
        (lambda: fastconv.avg_pool2d(X[0], 2), ValueError, ("(3, 5, 7)", "x[None]")),
        (lambda: fastconv.avg_pool2d(X, 2, padding=-1), ValueError, ("padding", "-1")),
        (lambda: fastconv.avg_pool2d(X, (2, 8)), ValueError, ("(2, 3, 5, 7)", "(2, 8)")),
        (lambda: fastconv.avg_pool2d(X, 2, divisor_override=0), ValueError, ("divisor_override",)),
        (lambda: fastconv.avg_pool2d(X, 2, out=X), ValueError, ("out", "x")),
        (
            lambda: fastconv.avg_pool2d_grad(Y, (2, 3, 5, 9), 2),
            ValueError,
            ("dy", "(2, 3, 2, 3)", "(2, 3, 2, 4)"),
        ),
        (lambda: fastconv.avg_pool2d_grad(Y, (3, 5, 7), 2), ValueError, ("input_shape",)),
        (lambda: fastconv.sum_pool2d_grad(Y, X.shape, 2, out=Y), ValueError, ("out", "dy")),
        (lambda: fastconv.adaptive_avg_pool2d(X, 0), ValueError, ("output_size", "0")),
        (lambda: fastconv.adaptive_avg_pool2d(X, (1, 2, 3)), ValueError, ("output_size", "2")),
        (lambda: fastconv.adaptive_avg_pool2d(X[0], 1), ValueError, ("(3, 5, 7)", "x[None]")),
        (lambda: fastconv.adaptive_avg_pool2d(X[:, :, :0], 1), ValueError, ("(2, 3, 0, 7)",)),
        (lambda: fastconv.adaptive_avg_pool2d_grad(Y[0], X.shape), ValueError, ("dy", "(3, 2, 3)")),
        (
            lambda: fastconv.adaptive_avg_pool2d_grad(Y, (2, 4, 5, 7)),
            ValueError,
            ("dy", "(2, 3, 2, 3)", "(2, 4, 2, 3)"),
        ),
        (lambda: fastconv.global_avg_pool2d(X[0]), ValueError, ("(3, 5, 7)", "x[None]")),
        (
            lambda: fastconv.global_avg_pool2d_grad(Y, X.shape),
            ValueError,
            ("dy", "(2, 3, 2, 3)", "(2, 3, 1, 1)"),
        ),
    ],
)
def test_wrong_input(call: Any, kind: type[Exception], parts: tuple[str, ...]) -> None:
    with refuses(kind, *parts):
        call()
