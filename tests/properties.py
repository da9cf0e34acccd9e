"""Random calls of every op against the oracle: `python properties.py SEED EXAMPLES LOG`.

test_properties.py runs it in processes of their own. What is drawn is written to LOG as it is
drawn, so that a call that ends the process can be read there.
"""

import sys
from collections.abc import Callable
from typing import Any, TextIO

import hypothesis
import hypothesis.strategies as st
import numpy as np

import fastconv
import reference
from checks import Guarded, Layout, assert_close, at_rank, channels_first, op

SIZES = {1: 40, 2: 12, 3: 6}  # largest extent, by the number of axes


class Example:
    """One random call: draws, operands and the comparison with the oracle."""

    def __init__(self, data: Any, log: TextIO) -> None:
        self.data, self.log = data, log
        log.seek(0)
        log.truncate()
        self.axes: int = self.draw(st.integers(1, 3), "axes")
        self.layout: Layout = self.draw(st.sampled_from(("NCHW", "NHWC")), "layout")
        self.dtype: str = self.draw(st.sampled_from(("float32", "float64")), "dtype")
        self.rng = np.random.default_rng(self.draw(st.integers(0, 2**32 - 1), "seed"))

    def draw(self, strategy: Any, label: str) -> Any:
        value = self.data.draw(strategy, label)
        self.log.write(f"{label}={value!r} ")
        self.log.flush()
        return value

    def integer(self, low: int, high: int, label: str) -> int:
        return int(self.draw(st.integers(low, high), label))

    def ints(self, low: int, high: int, label: str) -> tuple[int, ...]:
        return tuple(self.draw(st.tuples(*[st.integers(low, high)] * self.axes), label))

    def padding(self, high: int = 3) -> Any:
        side = st.integers(0, high)
        pairs = st.tuples(*[st.tuples(side, side)] * self.axes)
        words = st.sampled_from(("valid", "same", "same_lower"))
        return self.draw(st.one_of(words, side, pairs), "padding")

    def algorithm(self) -> str:
        return str(self.draw(st.sampled_from(("auto", "auto", "implicit", "im2col")), "algorithm"))

    def integers(self, shape: tuple[int, ...]) -> Any:
        """Small integers in float64: sums of their products are exact in float32."""
        return self.rng.integers(-4, 5, shape).astype(float)

    def image(self, a: Any, label: str) -> Any:
        """The call's view of an array: in the layout, of the dtype, of some strides."""
        return self.view(a if self.layout == "NCHW" else np.moveaxis(a, 1, -1), label)

    def view(self, a: Any, label: str) -> Any:
        kind = self.draw(st.sampled_from(tuple(VIEWS)), f"{label} is")
        return VIEWS[kind](a.astype(self.dtype if a.dtype == float else a.dtype))

    def compare(
        self, call: Callable[..., Any], shape: tuple[int, ...], check: Callable[[Any], None]
    ) -> None:
        """Call with a guarded output on some threads; `check` gets it with channels first."""
        if self.layout == "NHWC":
            shape = (shape[0], *shape[2:], shape[1])
        self.write(call, shape, lambda out: check(channels_first(self.layout, out)))

    def write(
        self, call: Callable[..., Any], shape: tuple[int, ...], check: Callable[[Any], None]
    ) -> None:
        out = Guarded(shape, self.dtype, step=self.integer(1, 2, "out step"))
        with fastconv.num_threads(self.integer(1, 3, "threads")):
            assert call(out=out.view) is out.view
        check(out.view)
        out.check()

    def options(self, **keywords: Any) -> dict[str, Any]:
        return {"layout": at_rank(self.layout, self.axes), **keywords}


def every_second(a: Any) -> Any:
    larger = np.full([2 * n for n in a.shape], np.nan if a.dtype.kind == "f" else 10**6, a.dtype)
    view = larger[(slice(None, None, 2),) * a.ndim]
    view[...] = a
    return view


def unaligned(a: Any) -> Any:
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a: Any) -> Any:
    copy = np.ascontiguousarray(a)
    copy.flags.writeable = False
    return copy


VIEWS: dict[str, Callable[[Any], Any]] = {
    "contiguous": np.ascontiguousarray,
    "in column order": np.asfortranarray,
    "reversed": lambda a: np.ascontiguousarray(np.flip(a))[(slice(None, None, -1),) * a.ndim],
    "every second cell": every_second,
    "unaligned": unaligned,
    "read-only": read_only,
}


def equals(want: Any) -> Callable[[Any], None]:
    def check(got: Any) -> None:
        np.testing.assert_array_equal(got, want.astype(got.dtype))

    return check


def near(want: Any, length: int) -> Callable[[Any], None]:
    return lambda got: assert_close(got, want, 1.0, length)


def conv(e: Example) -> None:
    groups = e.integer(1, 3, "groups")
    c, k = groups * e.integer(1, 5, "C/groups"), groups * e.integer(1, 5, "K/groups")
    x_shape = (e.integer(0, 3, "N"), c, *e.ints(1, SIZES[e.axes], "in"))
    w_shape = (k, c // groups, *e.ints(1, 4, "filter"))
    stride, dilation, padding = e.ints(1, 3, "stride"), e.ints(1, 3, "dilation"), e.padding()
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
            equals(np.maximum(y, 0) if relu else y),
        )
    elif which == "input":
        dx = reference.conv_grad_input(dy, w, x_shape, **geometry)
        e.compare(lambda out: ours[1](dyv, wv, xv.shape, **keywords, out=out), x_shape, equals(dx))
    else:
        dw = reference.conv_grad_weight(dy, x, w_shape, **geometry)
        e.write(lambda out: ours[2](dyv, xv, w_shape, **keywords, out=out), w_shape, equals(dw))


def conv_transpose(e: Example) -> None:
    groups = e.integer(1, 3, "groups")
    c, k = groups * e.integer(1, 5, "C/groups"), groups * e.integer(1, 5, "K/groups")
    x_shape = (e.integer(0, 3, "N"), c, *e.ints(1, SIZES[e.axes] // 2, "in"))
    w_shape = (c, k // groups, *e.ints(1, 4, "filter"))
    stride, dilation, padding = e.ints(1, 3, "stride"), e.ints(1, 3, "dilation"), e.padding()
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
            equals(np.maximum(y, 0) if relu else y),
        )
    elif which == "input":
        e.compare(lambda out: ours[1](dyv, wv, xv.shape, **keywords, out=out), x_shape, equals(dx))
    else:
        e.write(lambda out: ours[2](dyv, xv, w_shape, **keywords, out=out), w_shape, equals(dw))


def max_pool(e: Example) -> None:
    shape = (e.integer(0, 3, "N"), e.integer(1, 20, "C"), *e.ints(1, SIZES[e.axes], "in"))
    window, dilation = e.ints(1, 4, "window"), e.ints(1, 3, "dilation")
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


def avg_pool(e: Example) -> None:
    shape = (e.integer(0, 3, "N"), e.integer(1, 20, "C"), *e.ints(1, SIZES[e.axes], "in"))
    window = e.ints(1, 4, "window")
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
        near(reference.avg_pool_grad(dy, shape, window, **geometry), 4 * overlap),
    )


def adaptive_avg_pool(e: Example) -> None:
    shape = (e.integer(0, 3, "N"), e.integer(1, 20, "C"), *e.ints(1, SIZES[e.axes], "in"))
    outs = e.ints(1, 9, "out")
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
        near(reference.adaptive_avg_pool_grad(dy, shape), 4 * over),
    )


OPS = (conv, conv, conv_transpose, conv_transpose, max_pool, avg_pool, adaptive_avg_pool)


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
