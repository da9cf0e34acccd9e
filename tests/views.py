"""Calls on arrays that lie anywhere, with extents of one: `python views.py FIRST COUNT LOG`.

Call i is drawn from seed i alone. test_views.py runs this in processes of their own; LOG has what
was drawn last.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TextIO

import numpy as np

import fastconv
import reference
from cases import ConvCase
from checks import LAYOUTS, Layout, Problem, at_rank, exact_passes, op, to
from memory import Placed, placed, random_place

Array = Any


class Call:
    """One drawn call: its layout, dtype and threads, and the arrays that it takes."""

    def __init__(self, seed: int, log: TextIO) -> None:
        self.rng, self.log = np.random.default_rng(seed), log
        log.seek(0)
        log.truncate()
        self.axes = self.pick((1, 2, 2, 3, 3, 3))
        self.layout: Layout = self.pick(LAYOUTS)
        self.dtype: str = self.pick(("float32", "float64"))
        self.threads: int = self.pick((1, 2, 3))
        self.note(seed, self.layout, self.dtype, self.threads)

    def pick(self, values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def note(self, *drawn: Any) -> None:
        print(*drawn, file=self.log, flush=True)

    def extents(self, *largest: int) -> tuple[int, ...]:
        """Up to so many each, but one of them is often 1."""
        return tuple(
            1 if self.rng.integers(3) == 0 else self.pick(range(1, n + 1)) for n in largest
        )

    def integers(self, shape: tuple[int, ...]) -> Array:
        return self.rng.integers(-4, 5, shape).astype(float)

    def image(self, a: Array) -> Array:
        return self.array(to(self.layout, a))

    def array(self, a: Array) -> Array:
        place = random_place(self.rng, a.ndim)
        self.note(a.shape, place)
        return placed(a.astype(self.dtype if a.dtype == float else a.dtype), place)

    def check(self, call: Callable[..., Any], want: Array, tolerance: float = 0) -> None:
        """What the call writes into an array at any place is this, and it writes nothing else."""
        place = random_place(self.rng, want.ndim)
        self.note("out", want.shape, place)
        out = Placed(want.shape, self.dtype, place)
        with fastconv.num_threads(self.threads):
            call(out=out.view)
        np.testing.assert_allclose(
            out.view, want.astype(self.dtype), rtol=tolerance, atol=tolerance
        )
        out.check()


def conv_case(call: Call) -> ConvCase:
    """Filters of one cell every other time, half of them without stride and padding."""
    groups = call.pick((1, 1, 1, 2, 3))
    c, k = (groups * n for n in call.extents(20, 20) if n)
    sizes = call.extents(*{1: (37,), 2: (9, 21), 3: (5, 6, 13)}[call.axes])
    case = ConvCase("drawn", (*call.extents(3), c, *sizes), (k, c // groups, *(1,) * call.axes))
    case = replace(case, groups=groups)
    if call.rng.integers(3) == 0:
        return case
    pads = tuple((call.pick((0, 0, 1, 2)), call.pick((0, 0, 1))) for _ in sizes)
    room = [n + sum(pair) for n, pair in zip(sizes, pads, strict=True)]
    taps = call.extents(*(min(n, 4) for n in room)) if call.rng.integers(2) else (1,) * call.axes
    return replace(
        case, w=(*case.w[:2], *taps), padding=pads, stride=call.extents(*(3,) * call.axes)
    )


def conv(call: Call) -> None:
    """The three passes, and the three of the transposed convolution: the same sums."""
    case = conv_case(call)
    algorithm = call.pick(("auto", "auto", "implicit", "im2col", "direct"))
    call.note(case, algorithm)
    problem = Problem(case, *map(call.integers, (case.x, case.w, case.w[:1], case.y)))
    exact = exact_passes(problem)
    keywords = {**case.geometry, "layout": at_rank(call.layout, call.axes), "algorithm": algorithm}
    x, dy = call.image(problem.x), call.image(problem.dy)
    w, bias = call.array(problem.w), call.array(problem.bias)

    def check(name: str, args: tuple[Any, ...], want: Array, **more: Any) -> None:
        call.note(name)
        call.check(lambda out: op(name, call.axes)(*args, **keywords, **more, out=out), want)

    y, dx, dw = to(call.layout, exact["forward"]), to(call.layout, exact["input"]), exact["weight"]
    check("conv{}d", (x, w, bias), y)
    check("conv{}d_grad_input", (dy, w, x.shape), dx)
    check("conv{}d_grad_weight", (dy, x, w.shape), dw)
    spare = tuple((a.size + a.before + a.after - a.span) % a.stride for a in case.axes)
    keywords["output_padding"] = spare
    plain = y - (problem.bias if call.layout == "NHWC" else per_channel(problem.bias, call.axes))
    check("conv_transpose{}d", (dy, w), np.maximum(dx, 0), activation="relu")
    check("conv_transpose{}d_grad_input", (x, w, dy.shape), plain)
    check("conv_transpose{}d_grad_weight", (x, dy, w.shape), dw)


def per_channel(bias: Array, axes: int) -> Array:
    return bias.reshape(-1, *(1,) * axes)


def pool(call: Call) -> None:
    """Maxima, averages and their gradients."""
    sizes = call.extents(*{1: (71,), 2: (12, 21), 3: (5, 6, 13)}[call.axes])
    window = call.extents(*(min(n, 4) for n in sizes))
    pads = tuple((call.pick((0, k // 2)), call.pick((0, k // 2))) for k in window)
    shape, stride = (*call.extents(3, 37), *sizes), call.extents(*(4,) * call.axes)
    geometry: dict[str, Any] = {"stride": stride, "padding": pads}
    call.note(shape, window, geometry)
    exact = call.integers(shape)
    highest, indices = reference.max_pool(exact, window, **geometry)
    gradient = call.integers(highest.shape)
    x, dy, at = call.image(exact), call.image(gradient), call.image(indices)
    layout = {"layout": at_rank(call.layout, call.axes)}

    def check(name: str, args: tuple[Any, ...], want: Array, **more: Any) -> None:
        call.note(name)
        ours, tolerance = op(name, call.axes), 1e-5 if "avg" in name else 0
        call.check(
            lambda out: ours(*args, **layout, **more, out=out), to(call.layout, want), tolerance
        )

    check("max_pool{}d", (x, window), highest, **geometry)
    check("max_pool{}d_grad", (dy, at, x.shape), reference.max_pool_grad(gradient, indices, shape))
    means = reference.avg_pool(exact, window, **geometry)
    check("avg_pool{}d", (x, window), means, **geometry)
    shares = reference.avg_pool_grad(gradient, shape, window, **geometry)
    check("avg_pool{}d_grad", (dy, x.shape, window), shares, **geometry)


def main(first: int, count: int, log: TextIO) -> None:
    """Draw and check so many calls."""
    for seed in range(first, first + count):
        call = Call(seed, log)
        (pool if call.rng.integers(4) == 0 else conv)(call)
    print(count)


if __name__ == "__main__":
    with open(sys.argv[3], "w") as log_file:
        main(int(sys.argv[1]), int(sys.argv[2]), log_file)
