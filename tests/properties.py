"""Random calls of every op against the oracle: `python properties.py SEED EXAMPLES LOG`.

test_properties.py runs it in processes of their own.
"""

import sys
from typing import Any, TextIO

import hypothesis
import hypothesis.strategies as st
import numpy as np

import fastconv
import reference
from checks import channels_first, op
from random_calls import Example, equals, near


def conv(e: Example) -> None:
    groups = e.integer(1, 3, "groups")
    c, k = e.channels("C", groups), e.channels("K", groups)
    x_shape = (e.images(), c, *e.extents())
    taps, stride, dilation = e.filters(groups)
    padding, w_shape = e.padding(), (k, c // groups, *taps)
    axes = reference.axes_of(x_shape[2:], w_shape[2:], stride, padding, dilation)
    hypothesis.assume(min(a.out for a in axes) > 0)
    y_shape = (x_shape[0], k, *(a.out for a in axes))
    x, w, bias, dy = (e.integers(s) for s in (x_shape, w_shape, (k,), y_shape))
    geometry: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }
    keywords = e.options(**geometry, algorithm=e.algorithm())
    ours = [op(f"conv{{}}d{end}", e.axes) for end in ("", "_grad_input", "_grad_weight")]
    xv, dyv, wv = e.image(x, "x"), e.image(dy, "dy"), e.view(w, "w")
    which = e.draw(st.sampled_from(("forward", "relu", "input", "weight")), "pass")
    if which in ("forward", "relu"):
        relu = {"activation": "relu"} if which == "relu" else {}
        y = reference.conv(x, w, bias, **geometry)
        bias_view = e.view(bias, "bias")
        e.compare(
            lambda out: ours[0](xv, wv, bias_view, **keywords, **relu, out=out),
            y_shape,
            e.sums(np.maximum(y, 0) if relu else y),
        )
    elif which == "input":
        dx = reference.conv_grad_input(dy, w, x_shape, **geometry)
        e.compare(lambda out: ours[1](dyv, wv, xv.shape, **keywords, out=out), x_shape, e.sums(dx))
    else:
        dw = reference.conv_grad_weight(dy, x, w_shape, **geometry)
        e.write(lambda out: ours[2](dyv, xv, w_shape, **keywords, out=out), w_shape, e.sums(dw))


def conv_transpose(e: Example) -> None:
    groups = e.integer(1, 3, "groups")
    c, k = e.channels("C", groups), e.channels("K", groups)
    x_shape = (e.images(), c, *e.extents(2))
    taps, stride, dilation = e.filters(groups)
    padding, w_shape = e.padding(), (c, k // groups, *taps)
    limits = [max(pair) - 1 for pair in zip(stride, dilation, strict=True)]
    same = padding in ("same", "same_lower")
    extra = tuple(e.integer(0, 0 if same else n, "output_padding") for n in limits)
    axes = reference.transposed_axes(x_shape[2:], w_shape[2:], stride, padding, extra, dilation)
    hypothesis.assume(min(a.size for a in axes) > 0)
    y_shape = (x_shape[0], k, *(a.size for a in axes))
    x, w, bias, dy = (e.integers(s) for s in (x_shape, w_shape, (k,), y_shape))
    keywords = e.options(
        stride=stride,
        padding=padding,
        output_padding=extra,
        dilation=dilation,
        groups=groups,
        algorithm=e.algorithm(),
    )
    ours = [op(f"conv_transpose{{}}d{end}", e.axes) for end in ("", "_grad_input", "_grad_weight")]
    xv, dyv, wv = e.image(x, "x"), e.image(dy, "dy"), e.view(w, "w")
    which = e.draw(st.sampled_from(("forward", "relu", "input", "weight")), "pass")
    dx, dw = reference.conv_transpose_grad(dy, x, w, axes, groups)
    if which in ("forward", "relu"):
        relu = {"activation": "relu"} if which == "relu" else {}
        y = reference.conv_transpose(x, w, axes, bias, groups)
        bias_view = e.view(bias, "bias")
        e.compare(
            lambda out: ours[0](xv, wv, bias_view, **keywords, **relu, out=out),
            y_shape,
            e.sums(np.maximum(y, 0) if relu else y),
        )
    elif which == "input":
        e.compare(lambda out: ours[1](dyv, wv, xv.shape, **keywords, out=out), x_shape, e.sums(dx))
    else:
        e.write(lambda out: ours[2](dyv, xv, w_shape, **keywords, out=out), w_shape, e.sums(dw))


def max_pool(e: Example) -> None:
    shape = (e.images(), e.channels("C"), *e.extents())
    window, dilation = e.window(), e.ints(1, 3, "dilation")
    halves = [((k - 1) * d + 1) // 2 for k, d in zip(window, dilation, strict=True)]
    geometry: dict[str, Any] = {
        "stride": e.ints(1, 4, "stride"),
        "padding": tuple((e.integer(0, h, "before"), e.integer(0, h, "after")) for h in halves),
        "dilation": dilation,
        "ceil_mode": bool(e.integer(0, 1, "ceil_mode")),
    }
    axes = reference.axes_of(
        shape[2:],
        window,
        geometry["stride"],
        geometry["padding"],
        dilation,
        ceil_mode=geometry["ceil_mode"],
    )
    hypothesis.assume(min(a.out for a in axes) > 0)
    x = e.integers(shape)
    x[e.rng.random(shape) < 0.05] = np.nan
    x[e.rng.random(shape) < 0.2] = -np.inf
    y, indices = reference.max_pool(x, window, **geometry)
    xv = e.image(x, "x")
    found: list[Any] = []

    def forward(out: Any) -> Any:
        result, at = op("max_pool{}d", e.axes)(
            xv, window, **e.options(**geometry), return_indices=True, out=out
        )
        found.append(at)
        return result

    e.compare(forward, y.shape, equals(y))
    np.testing.assert_array_equal(channels_first(e.layout, found[0]), indices)
    dy = e.integers(y.shape)
    dyv, at = e.image(dy, "dy"), e.image(indices, "indices")
    e.compare(
        lambda out: op("max_pool{}d_grad", e.axes)(dyv, at, xv.shape, **e.options(), out=out),
        shape,
        equals(reference.max_pool_grad(dy, indices, shape)),
    )


def max_pool_of_integers(e: Example) -> None:
    shape = (e.images(), e.channels("C"), *e.extents())
    window, stride = e.window(), e.ints(1, 4, "stride")
    padding = tuple((e.integer(0, k // 2, "before"), e.integer(0, k // 2, "after")) for k in window)
    ceil = bool(e.integer(0, 1, "ceil_mode"))
    axes = reference.axes_of(shape[2:], window, stride, padding, 1, ceil_mode=ceil)
    hypothesis.assume(min(a.out for a in axes) > 0)
    limits = np.iinfo(e.draw(st.sampled_from(("int8", "uint8", "int32", "int64")), "integer"))
    x = e.rng.integers(limits.min, limits.max, shape, limits.dtype, endpoint=True)
    x[e.rng.random(shape) < 0.3] = limits.min
    geometry: dict[str, Any] = {"stride": stride, "padding": padding, "ceil_mode": ceil}
    want, indices = reference.max_pool(x, window, **geometry)
    with fastconv.num_threads(e.integer(1, 3, "threads")):
        got, at = op("max_pool{}d", e.axes)(
            e.image(x, "x"), window, **e.options(**geometry), return_indices=True
        )
    assert got.dtype == x.dtype
    np.testing.assert_array_equal(channels_first(e.layout, got), want)
    np.testing.assert_array_equal(channels_first(e.layout, at), indices)


def avg_pool(e: Example) -> None:
    shape = (e.images(), e.channels("C"), *e.extents())
    window = e.window()
    geometry: dict[str, Any] = {
        "stride": e.ints(1, 4, "stride"),
        "padding": e.padding(5),
        "ceil_mode": bool(e.integer(0, 1, "ceil_mode")),
        "count_include_pad": bool(e.integer(0, 1, "count_include_pad")),
        "divisor_override": e.draw(st.sampled_from((None, None, 3, -2)), "divisor_override"),
    }
    stride, padding, ceil = geometry["stride"], geometry["padding"], geometry["ceil_mode"]
    axes = reference.axes_of(shape[2:], window, stride, padding, 1, ceil_mode=ceil)
    hypothesis.assume(min(a.out for a in axes) > 0)
    x, keywords = e.integers(shape), e.options(**geometry)
    y = reference.avg_pool(x, window, **geometry)
    xv = e.image(x, "x")
    e.compare(
        lambda out: op("avg_pool{}d", e.axes)(xv, window, **keywords, out=out), y.shape, equals(y)
    )
    dy = e.integers(y.shape)
    dyv = e.image(dy, "dy")
    overlap = int(np.prod([-(-a.taps // a.stride) for a in axes]))
    e.compare(
        lambda out: op("avg_pool{}d_grad", e.axes)(dyv, xv.shape, window, **keywords, out=out),
        shape,
        near(lambda a: reference.avg_pool_grad(a, shape, window, **geometry), dy, 4 * overlap),
    )


def adaptive_avg_pool(e: Example) -> None:
    shape = (e.images(), e.channels("C"), *e.extents())
    outs = e.ints(1, 11, "out")
    x = e.integers(shape)
    xv = e.image(x, "x")
    y = reference.adaptive_avg_pool(x, outs)
    ours = op("adaptive_avg_pool{}d", e.axes)
    e.compare(lambda out: ours(xv, outs, **e.options(), out=out), y.shape, equals(y))
    dy = e.integers(y.shape)
    dyv = e.image(dy, "dy")
    over = int(np.prod([out // n + 2 for n, out in zip(shape[2:], outs, strict=True)]))
    e.compare(
        lambda out: op("adaptive_avg_pool{}d_grad", e.axes)(dyv, xv.shape, **e.options(), out=out),
        shape,
        near(lambda a: reference.adaptive_avg_pool_grad(a, shape), dy, 4 * over),
    )


OPS = (
    conv,
    conv,
    conv_transpose,
    conv_transpose,
    max_pool,
    max_pool_of_integers,
    avg_pool,
    adaptive_avg_pool,
)


def main(seed: int, examples: int, log: TextIO) -> None:
    """Draw and check so many examples."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.data())
    def check(data: Any) -> None:
        e = Example(data, log)
        which = e.draw(st.sampled_from(OPS).map(lambda f: f.__name__), "op")
        globals()[which](e)
        counted.append(which)

    counted: list[str] = []
    check()
    print(len(counted))


if __name__ == "__main__":
    with open(sys.argv[3], "w") as log_file:
        main(int(sys.argv[1]), int(sys.argv[2]), log_file)
