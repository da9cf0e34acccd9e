"""What the keywords of conv2d mean: bias, activation, the forms of geometry, out, NaN and Inf."""

import re
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
    assert_same_bits,
    channels_first,
    to,
)

algorithm_ = pytest.mark.parametrize("algorithm", ALGORITHMS)
layout_ = pytest.mark.parametrize("layout", LAYOUTS)

X, W = (2, 3, 7, 9), (5, 3, 3, 2)


@pytest.fixture
def x(rng: np.random.Generator) -> Any:
    return rng.integers(-4, 5, X).astype(np.float32)


@pytest.fixture
def w(rng: np.random.Generator) -> Any:
    return rng.integers(-4, 5, W).astype(np.float32)


@algorithm_
@layout_
@pytest.mark.parametrize("dtype", DTYPES)
def test_bias_is_added_to_its_own_channel(
    x: Any, w: Any, algorithm: Any, layout: Layout, dtype: str
) -> None:
    x, w = x.astype(dtype), w.astype(dtype)
    bias = np.arange(5, dtype=dtype) - 2
    x = to(layout, x)
    plain = fastconv.conv2d(x, w, layout=layout, algorithm=algorithm)
    biased = fastconv.conv2d(x, w, bias, layout=layout, algorithm=algorithm)
    added = channels_first(layout, biased) - channels_first(layout, plain)
    np.testing.assert_array_equal(added, np.broadcast_to(bias[:, None, None], added.shape))


def test_bias_of_any_strides(x: Any, w: Any) -> None:
    bias = np.arange(15, dtype=np.float32)
    y = fastconv.conv2d(x, w, bias[::-3])
    np.testing.assert_array_equal(y, fastconv.conv2d(x, w, bias[::-3].copy()))


@algorithm_
@layout_
def test_without_channels_the_result_is_the_bias(algorithm: Any, layout: Layout) -> None:
    x = to(layout, np.empty((2, 0, 5, 6), np.float32))
    w, bias = np.empty((3, 0, 2, 3), np.float32), np.array([4, -1, 2], np.float32)
    out = Guarded((2, 3, 4, 4) if layout == "NCHW" else (2, 4, 4, 3), np.float32)
    fastconv.conv2d(x, w, bias, layout=layout, algorithm=algorithm, out=out.view)
    want = np.broadcast_to(bias[:, None, None], (2, 3, 4, 4))
    np.testing.assert_array_equal(channels_first(layout, out.view), want)


@algorithm_
@layout_
@pytest.mark.parametrize("with_bias", [True, False])
def test_relu_is_applied_last(
    x: Any, w: Any, algorithm: Any, layout: Layout, with_bias: bool
) -> None:
    bias = np.array([30, -30, 0, 5, -5], np.float32) if with_bias else None
    keywords: dict[str, Any] = {"layout": layout, "algorithm": algorithm, "padding": (1, 2)}
    linear = fastconv.conv2d(to(layout, x), w, bias, **keywords)
    assert linear.min() < 0 < linear.max()
    rectified = fastconv.conv2d(to(layout, x), w, bias, activation="relu", **keywords)
    np.testing.assert_array_equal(rectified, np.maximum(linear, 0))


@algorithm_
def test_relu_passes_nan_on(x: Any, w: Any, algorithm: Any) -> None:
    x[1, 2, 3, 4] = np.nan
    y = fastconv.conv2d(x, w, activation="relu", algorithm=algorithm)
    reach = np.zeros((2, 5, 5, 8), bool)
    reach[1, :, 1:4, 3:5] = True
    np.testing.assert_array_equal(np.isnan(y), reach)


@algorithm_
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_special_value_in_x_goes_where_the_definition_puts_it(
    w: Any, rng: np.random.Generator, algorithm: Any, value: float
) -> None:
    x = rng.standard_normal(X).astype(np.float32)
    x[0, 1, 2, 8] = value
    w[w == 0] = 1
    geometry: dict[str, Any] = {"stride": (1, 2), "padding": ((2, 0), (1, 3))}
    y = fastconv.conv2d(x, w, algorithm=algorithm, **geometry)
    exact = reference.conv(x, w, **geometry)
    np.testing.assert_array_equal(y[~np.isfinite(y)], exact[~np.isfinite(exact)])
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(exact))


@algorithm_
def test_a_special_value_in_dy_goes_where_the_definition_puts_it(
    x: Any, w: Any, rng: np.random.Generator, algorithm: Any
) -> None:
    geometry: dict[str, Any] = {"stride": (3, 2), "padding": ((2, 0), (1, 3)), "dilation": (1, 2)}
    dy = rng.integers(1, 4, reference.conv(x, w, **geometry).shape).astype(np.float32)
    dy[1, 2, 1, 3] = np.nan
    dx = fastconv.conv2d_grad_input(dy, w, X, algorithm=algorithm, **geometry)
    dw = fastconv.conv2d_grad_weight(dy, x, W, algorithm=algorithm, **geometry)
    exact_dx = reference.conv_grad_input(dy, w, X, **geometry)
    exact_dw = reference.conv_grad_weight(dy, x, W, **geometry)
    np.testing.assert_array_equal(dx, exact_dx)
    np.testing.assert_array_equal(dw, exact_dw)
    assert np.isnan(dx).any()
    assert not np.isnan(dx).all()


@algorithm_
def test_nan_in_one_filter_stays_in_its_channel(x: Any, w: Any, algorithm: Any) -> None:
    w[3, 0, 1, 1] = np.nan
    y = fastconv.conv2d(x, w, stride=(1, 2), algorithm=algorithm)
    assert np.isnan(y[:, 3]).all()
    assert np.isfinite(np.delete(y, 3, axis=1)).all()


@pytest.mark.parametrize(
    ("form", "full"),
    [
        ({"stride": 2}, {"stride": (2, 2)}),
        ({"dilation": 2}, {"dilation": (2, 2)}),
        ({"padding": 1}, {"padding": ((1, 1), (1, 1))}),
        ({"padding": (2, 1)}, {"padding": ((2, 2), (1, 1))}),
        ({"padding": "valid"}, {"padding": 0}),
        ({"padding": "same"}, {"padding": ((1, 1), (0, 1))}),
        ({"padding": "same_lower"}, {"padding": ((1, 1), (1, 0))}),
        ({"padding": "same", "stride": (2, 3)}, {"padding": ((1, 1), (0, 0)), "stride": (2, 3)}),
        ({"padding": [[1, 0], [2, 3]]}, {"padding": ((1, 0), (2, 3))}),
        ({"stride": [2, 1]}, {"stride": (2, 1)}),
        ({"stride": np.int64(2)}, {"stride": 2}),
        ({"padding": np.array([2, 1])}, {"padding": (2, 1)}),
    ],
    ids=str,
)
def test_forms_of_the_geometry(x: Any, w: Any, form: dict[str, Any], full: dict[str, Any]) -> None:
    want = reference.conv(x, w, **full)
    np.testing.assert_array_equal(fastconv.conv2d(x, w, **form), want)


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("word", ["same", "same_lower"])
def test_same_gives_an_output_for_every_stride_cells(size: int, stride: int, word: str) -> None:
    x, w = np.ones((1, 1, size, size + 1), np.float32), np.ones((1, 1, 3, 4), np.float32)
    y = fastconv.conv2d(x, w, stride=stride, padding=word)
    assert y.shape == (1, 1, -(-size // stride), -(-(size + 1) // stride))
    np.testing.assert_array_equal(y, reference.conv(x, w, stride=stride, padding=word))


@layout_
@pytest.mark.parametrize("steps", [(1, 1, 1, 1), (2, 1, 3, 1), (1, 2, 1, 2), (-1, -1, -1, -1)])
def test_out_of_any_strides(x: Any, w: Any, layout: Layout, steps: tuple[int, ...]) -> None:
    want = to(layout, reference.conv(x, w, padding=1))
    larger = np.full([n * abs(s) + 2 for n, s in zip(want.shape, steps, strict=True)], np.nan)
    larger = larger.astype(np.float32)
    inside = tuple(
        slice(n * abs(s), 0, s) if s < 0 else slice(1, 1 + n * s, s)
        for n, s in zip(want.shape, steps, strict=True)
    )
    got = fastconv.conv2d(to(layout, x), w, padding=1, layout=layout, out=larger[inside])
    np.testing.assert_array_equal(got, want)
    larger[inside] = np.nan
    assert np.isnan(larger).all()


def test_layouts_only_name_the_axes(x: Any, w: Any) -> None:
    nchw = fastconv.conv2d(x, w, padding=1)
    nhwc = fastconv.conv2d(np.moveaxis(x, 1, -1), w, padding=1, layout="NHWC")
    assert_same_bits(np.ascontiguousarray(np.moveaxis(nhwc, -1, 1)), nchw)


def test_keras_filters_are_taken_as_a_view(x: Any, w: Any) -> None:
    hwio = np.ascontiguousarray(w.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(
        fastconv.conv2d(x, hwio.transpose(3, 2, 0, 1)), reference.conv(x, w)
    )


def test_enough_workspace_changes_nothing(x: Any, w: Any) -> None:
    limited = fastconv.conv2d(x, w, padding=1, workspace_limit=1 << 30)
    assert_same_bits(limited, fastconv.conv2d(x, w, padding=1))


def test_a_stride_beyond_the_image_takes_no_workspace(rng: np.random.Generator) -> None:
    x = rng.integers(-4, 5, (1, 6, 4, 5)).astype(np.float32)
    w = rng.integers(-4, 5, (40, 6, 3, 3)).astype(np.float32)
    options: dict[str, Any] = {"algorithm": "direct", "workspace_limit": 1 << 20}
    y = fastconv.conv2d(x, w, stride=(3000, 2000), **options)
    np.testing.assert_array_equal(y, fastconv.conv2d(x, w)[:, :, :1, :1])
    dw = fastconv.conv2d_grad_weight(y, x, w.shape, stride=(3000, 2000), **options)
    np.testing.assert_array_equal(dw, y[0, :, :, :, None] * x[0, None, :, :3, :3])


def test_one_dtype_runs_beside_the_other(x: Any, w: Any) -> None:
    y32 = fastconv.conv2d(x, w)
    y64 = fastconv.conv2d(x.astype(np.float64), w.astype(np.float64))
    assert (y32.dtype, y64.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(y32, y64)


def test_direct_refuses_a_filter_that_spans_too_much_and_auto_does_without(
    rng: np.random.Generator,
) -> None:
    x = rng.integers(-4, 5, (1, 2, 5, 6)).astype(np.float32)
    w = rng.integers(-4, 5, (3, 2, 3, 3)).astype(np.float32)
    options: dict[str, Any] = {"dilation": 2000, "padding": 2000}
    with pytest.raises(ValueError, match=r'"direct" cannot serve .* a million cells'):
        fastconv.conv2d(x, w, algorithm="direct", **options)
    want = fastconv.conv2d(x, w[:, :, 1:2, 1:2])  # the other taps lie in the padding
    np.testing.assert_array_equal(fastconv.conv2d(x, w, **options), want)


def test_auto_names_the_least_workspace_that_would_do(rng: np.random.Generator) -> None:
    x = rng.integers(-4, 5, (2, 3, 9, 8)).astype(np.float32)
    w = rng.integers(-4, 5, (4, 3, 3, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="workspace_limit is 0 bytes") as refused:
        fastconv.conv2d(x, w, workspace_limit=0)
    least = int(re.findall(r"\d+", str(refused.value))[-1])
    assert_same_bits(fastconv.conv2d(x, w, workspace_limit=least), fastconv.conv2d(x, w))
    with pytest.raises(ValueError, match=str(least)):
        fastconv.conv2d(x, w, workspace_limit=least - 1)
