"""Random calls: what the programs of test_properties.py draw, and where their arrays lie.

What is drawn is written to a log as it is drawn, so that a call that ends the process can be read
there.
"""

from collections.abc import Callable
from typing import Any, TextIO

import hypothesis.strategies as st
import numpy as np

import fastconv
from checks import Layout, at_rank, channels_first
from memory import Place, Placed, placed, random_place

SIZES = {1: 40, 2: 12, 3: 6}  # largest extent, by the number of axes
ROW = 70  # largest extent of a long last axis: several vectors


class Example:
    """One random call: draws, operands and the comparison with the oracle."""

    def __init__(self, data: Any, log: TextIO) -> None:
        self.data, self.log = data, log
        self.plain = self.pointwise = False
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

    def each(self, strategy: Any, label: str) -> tuple[Any, ...]:
        return tuple(self.draw(st.tuples(*[strategy] * self.axes), label))

    def ints(self, low: int, high: int, label: str) -> tuple[int, ...]:
        return self.each(st.integers(low, high), label)

    def images(self) -> int:
        """N: often one, and now and then none."""
        return int(self.draw(st.sampled_from((1, 1, 1, 2, 2, 3, 3, 0)), "N"))

    def extents(self, share: int = 1) -> tuple[int, ...]:
        """Of the input: each is often 1; the last axis may be a long row."""
        some = st.integers(1, SIZES[self.axes] // share)
        *others, last = self.each(st.one_of(st.just(1), some, some), "in")
        row = self.draw(st.one_of(st.just(last), st.integers(1, ROW // share)), "row")
        return (*others, row)

    def window(self) -> tuple[int, ...]:
        """Taps along each axis: small, or up to more than the input has cells."""
        sizes = st.one_of(st.integers(1, 4), st.integers(1, SIZES[self.axes] + 2))
        small, large = self.ints(1, 4, "small window"), self.draw(sizes, "tap count")
        axis = self.integer(0, self.axes - 1, "of axis")
        return tuple(large if i == axis else taps for i, taps in enumerate(small))

    def channels(self, label: str, groups: int = 1) -> int:
        """Channels in all groups: one or a few in each, or as many as fill vectors."""
        few, many = st.one_of(st.just(1), *[st.integers(1, 5)] * 3), st.integers(15, 34)
        return groups * int(self.draw(few if groups > 1 else st.one_of(few, few, many), label))

    def filters(self, groups: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Taps, stride and dilation; often of one cell, or such as Winograd serves."""
        kinds = ("any", "any", "one cell", "every cell alone", "3x3")
        kind = self.draw(st.sampled_from(kinds), "filters")
        self.plain = kind == "3x3" and self.axes == 2 and groups == 1
        if self.plain:
            return (3, 3), (1, 1), (1, 1)
        one = (1,) * self.axes
        self.pointwise = kind == "every cell alone"
        if self.pointwise:
            return one, one, one
        taps = one if kind == "one cell" else self.window()
        return taps, self.ints(1, 3, "stride"), self.ints(1, 3, "dilation")

    def padding(self, high: int = 3) -> Any:
        side = st.integers(0, high)
        pairs = st.tuples(*[st.tuples(side, side)] * self.axes)
        words = st.sampled_from(("valid", "same", "same_lower"))
        if self.pointwise:
            return self.draw(words, "padding")
        return self.draw(st.one_of(words, side, pairs), "padding")

    def algorithm(self) -> str:
        names = ("auto", "auto", "implicit", "im2col", "direct") + self.plain * ("winograd",)
        self.named = str(self.draw(st.sampled_from(names), "algorithm"))
        return self.named

    def sums(self, want: Any) -> Callable[[Any], None]:
        """What a convolution has to give: these integers, but for Winograd's rounding."""
        if not self.plain or self.named not in ("auto", "winograd"):
            return equals(want)
        error = {"float32": 1e-5, "float64": 2e-14}[self.dtype]
        scale = max(np.abs(want).max(initial=0), 64)
        return lambda got: np.testing.assert_allclose(got, want, rtol=0, atol=error * scale)

    def integers(self, shape: tuple[int, ...]) -> Any:
        """Small integers in float64: sums of their products are exact in float32."""
        thin = list(shape)
        if self.integer(0, 3, "repeated") == 0:  # along one axis, for views of stride 0
            axis = self.integer(0, len(shape) - 1, "repeated axis")
            thin[axis] = min(1, thin[axis])
        return np.broadcast_to(self.rng.integers(-4, 5, thin), shape).astype(float)

    def image(self, a: Any, label: str) -> Any:
        """The call's view of an array: in the layout, of the dtype, of some strides."""
        return self.view(a if self.layout == "NCHW" else np.moveaxis(a, 1, -1), label)

    def view(self, a: Any, label: str) -> Any:
        """Any array: at a place drawn for it, or one that the package has to copy or broadcast."""
        a = a.astype(self.dtype if a.dtype == float else a.dtype)
        kind = self.draw(st.sampled_from(("placed",) * 6 + tuple(VIEWS)), f"{label} is")
        if kind != "placed":
            return VIEWS[kind](a)
        return placed(a, self.place(a.ndim, label))

    def place(self, axes: int, label: str) -> Place:
        place = random_place(self.rng, axes)
        self.log.write(f"{label}={place} ")
        self.log.flush()
        return place

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
        out = Placed(shape, self.dtype, self.place(len(shape), "out"))
        with fastconv.num_threads(self.integer(1, 3, "threads")):
            assert call(out=out.view) is out.view
        check(out.view)
        out.check()

    def options(self, **keywords: Any) -> dict[str, Any]:
        return {"layout": at_rank(self.layout, self.axes), **keywords}


def unaligned(a: Any) -> Any:
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def repeated(a: Any) -> Any:
    """Stride 0 along every axis whose slices are all the same."""
    firsts = [a[(slice(None),) * i + (slice(0, 1),)] for i in range(a.ndim)]
    constant = [a.size > 0 and bool((a == first).all()) for first in firsts]
    thin = a[tuple(slice(0, 1) if same else slice(None) for same in constant)].copy()
    return np.broadcast_to(thin, a.shape)


def read_only(a: Any) -> Any:
    copy = np.ascontiguousarray(a)
    copy.flags.writeable = False
    return copy


VIEWS: dict[str, Callable[[Any], Any]] = {
    "unaligned": unaligned,
    "repeated": repeated,
    "read-only": read_only,
}


def equals(want: Any) -> Callable[[Any], None]:
    def check(got: Any) -> None:
        np.testing.assert_array_equal(got, want.astype(got.dtype))

    return check


def near(exact: Callable[[Any], Any], dy: Any, length: int) -> Callable[[Any], None]:
    """exact(dy), but for rounding: relative to the sum of magnitudes, as a sum may cancel."""
    want, scale = exact(dy), np.abs(exact(np.abs(dy))).max(initial=0)

    def check(got: Any) -> None:
        error = length * np.finfo(got.dtype).eps * scale
        np.testing.assert_allclose(got, want, rtol=0, atol=error)

    return check
