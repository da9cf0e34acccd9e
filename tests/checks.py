"""What the tests of the operations share: operands, expected results, guarded outputs, errors."""

import contextlib
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

import fastconv
import reference
from cases import ConvCase

AnyArray = npt.NDArray[Any]

Layout = Literal["NCHW", "NHWC"]
Pass = Literal["forward", "input", "weight"]
LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC")
PASSES: tuple[Pass, ...] = ("forward", "input", "weight")
DTYPES = ("float32", "float64")
FIRST_SEED = 1000 * int(os.environ.get("FASTCONV_SEED", "0"))  # of random calls and geometries

# Largest error allowed on random data, max|ours - exact| / max|exact|, in units of
# eps * reduction length. A plain sum in any order keeps to 1.
ERROR_FACTOR = {"im2col": 1.0, "implicit": 1.0, "direct": 1.0, "auto": 1.0}
ALGORITHMS = tuple(ERROR_FACTOR)  # each serves every geometry of these tests


@dataclass(frozen=True, eq=False)  # compared and cached by identity
class Problem:
    """One case with its operands and, in float64, what each pass makes of them; all NCHW."""

    case: ConvCase
    x: AnyArray
    w: AnyArray
    bias: AnyArray
    dy: AnyArray

    @property
    def reduction(self) -> dict[str, int]:
        """How many products each pass adds up for one element of its result."""
        n, _, *outputs = self.case.y
        k, c, *filter_size = self.case.w
        return {
            "forward": c * prod(filter_size) + 1,
            "input": k // self.case.groups * prod(filter_size),
            "weight": n * prod(outputs),
        }

    def run(
        self,
        which: Pass,
        dtype: npt.DTypeLike,
        layout: Layout = "NCHW",
        call: Callable[..., Any] = lambda function, *args, **keywords: function(*args, **keywords),
        **keywords: Any,
    ) -> Any:
        """The package's result of one pass, in `layout`; `keywords` go to the call."""
        x, w, bias, dy = (
            a.astype(dtype) for a in (to(layout, self.x), self.w, self.bias, to(layout, self.dy))
        )
        axes = x.ndim - 2
        keywords = {**self.case.geometry, "layout": at_rank(layout, axes), **keywords}
        if which == "forward":
            return call(op("conv{}d", axes), x, w, bias, **keywords)
        if which == "input":
            return call(op("conv{}d_grad_input", axes), dy, w, x.shape, **keywords)
        return call(op("conv{}d_grad_weight", axes), dy, x, w.shape, **keywords)

    def exact(self, which: Pass, layout: Layout = "NCHW") -> AnyArray:
        """The oracle's result of one pass, in `layout`."""
        result = _exact(self)[which]
        return result if which == "weight" else to(layout, result)


def exact_passes(problem: Problem) -> dict[str, AnyArray]:
    """What the oracle makes of a problem's operands, channels first."""
    case, x, w, dy = problem.case, problem.x, problem.w, problem.dy
    return {
        "forward": reference.conv(x, w, problem.bias, **case.geometry),
        "input": reference.conv_grad_input(dy, w, case.x, **case.geometry),
        "weight": reference.conv_grad_weight(dy, x, case.w, **case.geometry),
    }


_exact = cache(exact_passes)


@cache
def integer_problem(case: ConvCase) -> Problem:
    """Operands of small integers: every sum is exact in float32, whatever its order."""
    rng = np.random.default_rng(11)
    shapes = (case.x, case.w, case.w[:1], case.y)
    return Problem(case, *(rng.integers(-4, 5, shape).astype(float) for shape in shapes))


@cache
def random_problem(case: ConvCase, dtype: npt.DTypeLike) -> Problem:
    """Operands from the normal distribution, rounded to `dtype` before the oracle sees them."""
    rng = np.random.default_rng(12)
    shapes = (case.x, case.w, case.w[:1], case.y)
    return Problem(
        case, *(rng.standard_normal(shape).astype(dtype).astype(float) for shape in shapes)
    )


def op(name: str, axes: int) -> Any:
    """The function for so many spatial axes: op("conv{}d", 3) is conv3d."""
    return getattr(fastconv, name.format(axes))


def at_rank(layout: Layout, axes: int) -> str:
    """The layout of arrays with so many spatial axes that has its channels in the same place."""
    return layout.replace("HW", "DHW"[-axes:])


def to(layout: Layout, a: AnyArray) -> AnyArray:
    """A channels-first array laid out as `layout` says, contiguous."""
    return a if layout.startswith("NC") else np.ascontiguousarray(np.moveaxis(a, 1, -1))


def channels_first(layout: Layout, a: AnyArray) -> AnyArray:
    """The view of an array in `layout` that has its channels first."""
    return a if layout.startswith("NC") else np.moveaxis(a, -1, 1)


class Guarded:
    """An output array filled with NaN inside a larger buffer filled with NaN.

    `view` is what to pass as `out`. With `step` 2 its cells lie apart, a guard between each two.
    A cell that was never written stays NaN, and `check` finds a write next to or between them.
    """

    MARGIN = 64  # cells on both sides: wider than any vector store

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike, *, step: int = 1) -> None:
        size = int(np.prod(shape))
        self.buffer = np.full(size * step + 2 * self.MARGIN, np.nan, dtype)
        self.inside = slice(self.MARGIN, self.MARGIN + size * step, step)
        self.view = self.buffer[self.inside].reshape(shape)
        self.outside = np.ones(self.buffer.shape, bool)
        self.outside[self.inside] = False
        assert self.view.base is self.buffer

    def check(self) -> None:
        """Fail unless every cell outside the view is as it was."""
        assert np.isnan(self.buffer[self.outside]).all(), "written outside the output"


def same_bits(a: AnyArray, b: AnyArray) -> bool:
    """Whether two arrays have one shape, one dtype and the same bits, NaN and -0.0 included."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def assert_same_bits(a: AnyArray, b: AnyArray, what: str = "") -> None:
    """Fail unless same_bits, and say where they differ."""
    if same_bits(a, b):
        return
    assert (a.shape, a.dtype) == (b.shape, b.dtype), what
    rows = (np.frombuffer(c.tobytes(), np.uint8).reshape(-1, c.itemsize) for c in (a, b))
    apart = np.flatnonzero(np.any(np.not_equal(*rows), axis=1))
    first = tuple(map(int, np.unravel_index(apart[0], a.shape)))
    values = f"{a[first]} and {b[first]}"
    pytest.fail(f"{what} {apart.size} of {a.size} cells differ, the first at {first}: {values}")


def assert_close(ours: AnyArray, exact: AnyArray, factor: float, length: int) -> None:
    """max|ours - exact| / max|exact| is at most factor * eps * length."""
    assert ours.shape == exact.shape
    if exact.size == 0:
        return
    error = np.abs(ours - exact).max() / max(np.abs(exact).max(), np.finfo(np.float32).tiny)
    bound = factor * np.finfo(ours.dtype).eps * length
    assert error <= bound, f"error {error:.3g} above {bound:.3g}"


def mentions(*parts: str) -> str:
    """A pattern for text that has all of these, in any order; names only as whole words."""
    whole = (rf"\b{re.escape(p)}\b" if p.isidentifier() else re.escape(p) for p in parts)
    return "".join(f"(?=.*{pattern})" for pattern in whole)


@contextlib.contextmanager
def refuses(kind: type[Exception] | tuple[type[Exception], ...], *parts: str) -> Iterator[None]:
    """Expect an exception of this kind whose message is one line that has all these parts."""
    with pytest.raises(kind, match=mentions(*parts) if parts else None) as caught:
        yield
    assert "\n" not in str(caught.value)


def run_python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter, which must exit with 0, and return what it printed."""
    done = try_python(code, **environment)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def try_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, without the caller's FASTCONV_ and OMP_ settings."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("FASTCONV_", "OMP_"))}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=300,  # a busy machine may stop for a minute
        check=False,
    )
