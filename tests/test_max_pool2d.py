"""max_pool2d and its gradient: geometry against the oracle, then each rule by its name."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastconv
import reference
from cases import POOL_CASES, PoolCase, random_pool_cases
from checks import DTYPES, LAYOUTS, Guarded, Layout, assert_same_bits, channels_first, to
from fastconv import ops

INF, NAN = np.inf, np.nan

layout_ = pytest.mark.parametrize("layout", LAYOUTS)
dtype_ = pytest.mark.parametrize("dtype", DTYPES)
case_ = pytest.mark.parametrize("case", [*POOL_CASES, *random_pool_cases(40, seed=3)], ids=str)


def few_values(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
    """An array with many ties, and some NaN and -inf among them."""
    rng = np.random.default_rng(5)
    x = rng.integers(-3, 4, shape).astype(dtype)
    x[rng.random(shape) < 0.03] = np.nan
    x[rng.random(shape) < 0.15] = -np.inf
    return x


@case_
@layout_
@dtype_
@pytest.mark.usefixtures("threads")
def test_values_and_indices_equal_the_oracle(case: PoolCase, layout: Layout, dtype: str) -> None:
    x = few_values(case.x, dtype)
    want, want_indices = reference.max_pool(x, case.kernel_size, **case.geometry)
    out = Guarded(to(layout, want).shape, dtype)
    y, indices = fastconv.max_pool2d(
        to(layout, x),
        case.kernel_size,
        layout=layout,
        return_indices=True,
        out=out.view,
        **case.geometry,
    )
    assert y is out.view
    np.testing.assert_array_equal(channels_first(layout, y), want)
    np.testing.assert_array_equal(channels_first(layout, indices), want_indices)
    assert indices.dtype == np.int64
    out.check()


@case_
@layout_
def test_without_indices_the_values_are_the_same(case: PoolCase, layout: Layout) -> None:
    x = few_values(case.x, np.float32)
    want, _ = reference.max_pool(x, case.kernel_size, **case.geometry)
    y = fastconv.max_pool2d(to(layout, x), case.kernel_size, layout=layout, **case.geometry)
    assert isinstance(y, np.ndarray)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(channels_first(layout, y), want)


@case_
@layout_
@dtype_
@pytest.mark.usefixtures("threads")
def test_gradient_equals_the_oracle(case: PoolCase, layout: Layout, dtype: str) -> None:
    x = few_values(case.x, dtype)
    y, indices = reference.max_pool(x, case.kernel_size, **case.geometry)
    dy = np.random.default_rng(6).integers(-4, 5, y.shape).astype(dtype)
    out = Guarded(to(layout, x).shape, dtype)
    dx = fastconv.max_pool2d_grad(
        to(layout, dy), to(layout, indices), out.view.shape, layout=layout, out=out.view
    )
    assert dx is out.view
    want = reference.max_pool_grad(dy, indices, case.x)
    np.testing.assert_array_equal(channels_first(layout, dx), want)
    out.check()


def pool(rows: list[list[float]], kernel_size: Any, **keywords: Any) -> tuple[Any, Any]:
    """Pool one plane, return the planes of values and indices."""
    x = np.array(rows, np.float32)[None, None]
    y, indices = fastconv.max_pool2d(x, kernel_size, return_indices=True, **keywords)
    return y[0, 0], indices[0, 0]


def test_ties_take_the_first_cell_in_row_order() -> None:
    _, indices = pool([[0, 7, 1], [7, 7, 7]], (2, 3))
    np.testing.assert_array_equal(indices, [[1]])


def test_zeros_of_either_sign_tie() -> None:
    _, indices = pool([[-0.0, 0.0, -0.0]], (1, 3))
    np.testing.assert_array_equal(indices, [[0]])


def test_nan_is_propagated_and_the_first_one_is_chosen() -> None:
    y, indices = pool([[9, 1, 5], [2, NAN, NAN]], (2, 3))
    assert np.isnan(y).all()
    np.testing.assert_array_equal(indices, [[4]])


def test_nan_is_greater_than_infinity_before_and_after_it() -> None:
    y, indices = pool([[INF, NAN, NAN, INF]], (1, 2))
    assert np.isnan(y).all()
    np.testing.assert_array_equal(indices, [[1, 2]])


def test_a_window_of_minus_infinity_gives_its_first_real_cell() -> None:
    y, indices = pool([[-INF, -INF], [-INF, -INF]], 2, padding=1, stride=1)
    np.testing.assert_array_equal(y, np.full((3, 3), -INF))
    np.testing.assert_array_equal(indices, [[0, 0, 1], [0, 0, 1], [2, 2, 3]])


def test_padding_is_never_chosen() -> None:
    y, indices = pool([[-5, -6, -7]], (1, 3), padding=(0, 1))
    np.testing.assert_array_equal(y, [[-5]])
    np.testing.assert_array_equal(indices, [[0]])


def test_a_window_that_dilation_leaves_with_padding_alone_has_no_gradient() -> None:
    """Taps at rows -2 and 2, then at rows -1 and 3, of a plane with two rows."""
    y, indices = pool([[1, 2], [3, 4]], (2, 1), stride=1, padding=(2, 0), dilation=(4, 1))
    np.testing.assert_array_equal(y, [[-INF, -INF], [-INF, -INF]])
    np.testing.assert_array_equal(indices, [[-1, -1], [-1, -1]])
    dy = np.ones((1, 1, 2, 2), np.float32)
    dx = fastconv.max_pool2d_grad(dy, indices[None, None], (1, 1, 2, 2))
    np.testing.assert_array_equal(dx, np.zeros((1, 1, 2, 2)))


@layout_
def test_indices_count_within_the_plane_in_either_layout(layout: Layout) -> None:
    x = np.zeros((2, 3, 4, 5), np.float32)
    x[:, :, 2, 3] = 1
    _, indices = fastconv.max_pool2d(to(layout, x), (4, 5), layout=layout, return_indices=True)
    assert indices.shape == ((2, 3, 1, 1) if layout == "NCHW" else (2, 1, 1, 3))
    np.testing.assert_array_equal(indices, np.full(indices.shape, 2 * 5 + 3))


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5])
def test_padding_may_reach_half_the_window(kernel_size: int) -> None:
    x = few_values((1, 2, 7, 9), np.float32)
    half = kernel_size // 2
    y = fastconv.max_pool2d(x, kernel_size, stride=1, padding=half)
    want, _ = reference.max_pool(x, kernel_size, stride=1, padding=half)
    np.testing.assert_array_equal(y, want)
    with pytest.raises(ValueError, match="padding"):
        fastconv.max_pool2d(x, kernel_size, stride=1, padding=half + 1)


def test_half_of_the_window_counts_its_dilation() -> None:
    x = few_values((1, 2, 7, 9), np.float32)
    y = fastconv.max_pool2d(x, 2, stride=1, padding=2, dilation=3)  # a window of 4 cells
    want, _ = reference.max_pool(x, 2, stride=1, padding=2, dilation=3)
    np.testing.assert_array_equal(y, want)
    with pytest.raises(ValueError, match="padding"):
        fastconv.max_pool2d(x, 2, stride=1, padding=3, dilation=3)


def test_stride_defaults_to_the_window() -> None:
    x = few_values((2, 3, 9, 8), np.float32)
    y: Any = fastconv.max_pool2d(x, (3, 2))
    want: Any = fastconv.max_pool2d(x, (3, 2), stride=(3, 2))
    assert_same_bits(y, want)


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding", "floor", "ceil"),
    [
        (5, 2, 2, 0, 2, 3),  # the last cell alone gets a window
        (6, 2, 2, 0, 3, 3),  # nothing is left over
        (3, 2, 2, 1, 2, 2),  # a third window would start in the trailing padding
        (4, 1, 3, 0, 2, 2),
        (5, 1, 3, 0, 2, 2),  # a third window would start outside
        (4, 3, 4, 1, 1, 2),  # the second starts on the last real cell
        (3, 3, 4, 1, 1, 1),  # the second would start on the trailing padding
    ],
)
def test_the_last_window_of_ceil_mode_starts_inside(
    size: int, kernel_size: int, stride: int, padding: int, floor: int, ceil: int
) -> None:
    x = np.arange(size * 2, dtype=np.float32).reshape(1, 1, size, 2)
    geometry: dict[str, Any] = {"stride": (stride, 1), "padding": (padding, 0)}
    for ceil_mode, rows in ((False, floor), (True, ceil)):
        y: Any = fastconv.max_pool2d(x, (kernel_size, 1), ceil_mode=ceil_mode, **geometry)
        assert y.shape[2] == rows


def test_ceil_mode_may_give_an_output_where_the_window_is_larger_than_the_input() -> None:
    y, indices = pool([[1, 3, 2]], (1, 4), stride=(1, 2), ceil_mode=True)
    np.testing.assert_array_equal(y, [[3]])
    np.testing.assert_array_equal(indices, [[1]])


@layout_
def test_gradient_takes_any_strides_and_read_only_operands(layout: Layout) -> None:
    x = few_values((2, 3, 9, 8), np.float32)
    y, indices = reference.max_pool(x, (3, 2), stride=(2, 1))
    dy = np.arange(y.size, dtype=np.float32).reshape(y.shape)
    want = reference.max_pool_grad(dy, indices, x.shape)
    spread_dy = np.repeat(to(layout, dy), 2, axis=3)[..., ::2]
    spread_indices = np.repeat(to(layout, indices)[::-1], 3, axis=1)[::-1, ::3]
    spread_dy.flags.writeable = spread_indices.flags.writeable = False
    dx = fastconv.max_pool2d_grad(spread_dy, spread_indices, to(layout, x).shape, layout=layout)
    np.testing.assert_array_equal(channels_first(layout, dx), want)


@layout_
def test_out_of_any_strides(layout: Layout) -> None:
    x = few_values((2, 3, 9, 8), np.float32)
    want, _ = reference.max_pool(x, (3, 2))
    larger = np.zeros([n * 2 for n in to(layout, want).shape], np.float32)
    out = larger[::2, ::-2, 1::2, ::2]
    fastconv.max_pool2d(to(layout, x), (3, 2), layout=layout, out=out)
    np.testing.assert_array_equal(channels_first(layout, out), want)


def test_a_gradient_with_nan_keeps_it_to_its_cell() -> None:
    dy = np.array([[[[NAN, 2.0]]]], np.float32)
    dx = fastconv.max_pool2d_grad(dy, np.array([[[[1, 3]]]]), (1, 1, 1, 4))
    np.testing.assert_array_equal(dx, [[[[0, NAN, 0, 2]]]])


def test_windows_too_large_for_bytes_track_indices() -> None:
    x = np.random.default_rng(4).integers(-9, 4, (2, 3, 19, 31)).astype("float32").clip(0)
    window = (17, 16)
    want, indices = reference.max_pool(x, window, stride=(2, 15))
    y, offsets = ops.max_pool2d_offsets(x, window, stride=(2, 15), rectified=True)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(offsets, np.where(want > 0, indices, -1))
    dx = ops.max_pool2d_offsets_grad(y, offsets, x.shape, window, stride=(2, 15))
    np.testing.assert_array_equal(dx, reference.max_pool_grad(y, offsets, x.shape))


def test_the_offsets_of_a_window_of_255_cells() -> None:
    x = np.zeros((1, 2, 15, 17), np.float32)
    x[0, 1, 14, 16] = 1
    y, offsets = ops.max_pool2d_offsets(x, (15, 17))
    np.testing.assert_array_equal(offsets[0, :, 0, 0], [0, 254])
    dx = ops.max_pool2d_offsets_grad(y, offsets, x.shape, (15, 17))
    np.testing.assert_array_equal(dx, x)


def test_offsets_must_fit_the_pool() -> None:
    x = np.zeros((2, 3, 6, 8), np.float32)
    y, offsets = ops.max_pool2d_offsets(x, 2)
    with pytest.raises(
        ValueError, match=r"offsets has shape \(2, 3, 3, 3\), expected \(2, 3, 3, 4\)"
    ):
        ops.max_pool2d_offsets_grad(y, offsets[..., 1:], x.shape, 2)
    with pytest.raises(ValueError, match=r"dy has shape \(2, 3, 3, 4\), expected \(2, 3, 2, 4\)"):
        ops.max_pool2d_offsets_grad(y, offsets, x.shape, (3, 2))
