"""An infinity or a NaN in any one cell of any operand goes where the definition puts it.

Zeros of the padding are multiplied like other cells of x. An input gradient may multiply filters
by zeros beyond the edges of dy too, or not. One call sees every cell of an operand: each is spoilt
in an image, a filter or a channel of its own, which the result keeps apart.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest

import reference
from cases import ConvCase
from checks import LAYOUTS, Pass, Problem, channels_first, exact_passes

PLANE = (5, 11)
# What each pass reads, and the axis along which its result keeps apart what that spoils.
OPERANDS: dict[Pass, dict[str, int]] = {
    "forward": {"x": 0, "w": 0},
    "input": {"dy": 0, "w": 1},
    "weight": {"x": 1, "dy": 1},
}
KINDS = ("dense", "grouped", "depthwise", "depthwise_doubled")
ALGORITHMS = ("im2col", "implicit", "direct")


def geometries(value: float) -> Iterator[tuple[int, dict[str, int]]]:
    """Taps along an axis, and keywords; those with an output, and for NaN a third of them."""
    drawn = product((1, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2))
    for i, (taps, stride, padding, dilation) in enumerate(drawn):
        fits = (taps - 1) * dilation < PLANE[0] + 2 * padding
        if fits and (taps > 1 or dilation == 1) and (value == np.inf or i % 3 == 0):
            yield taps, {"stride": stride, "padding": padding, "dilation": dilation}


def spoilt_case(kind: str, which: Pass, operand: str, taps: int, **geometry: int) -> ConvCase:
    """With as many images, filters or channels as the operand's planes have cells."""
    x, w = (2, 1, *PLANE), (1, 1, taps, taps)
    plane = {"x": x, "w": w, "dy": ConvCase("plane", x, w, **geometry).y}[operand]
    count = prod(plane[2:])
    axis = OPERANDS[which][operand]
    n = count if operand != "w" and axis == 0 else 2
    if kind.startswith("depthwise"):
        c = groups = 21 if n == count else count
        k = 2 * c if kind == "depthwise_doubled" else c
    else:
        groups = 3 if kind == "grouped" else 1
        few = {"c": 3, "k": 5} if groups > 1 else {"c": 5, "k": 19}
        if n != count:
            few["k" if (operand, axis) in (("w", 0), ("dy", 1)) else "c"] = count
        c, k = groups * few["c"], groups * few["k"]
    case = ConvCase(kind, (n, c, *PLANE), (k, c // groups, taps, taps), **geometry)
    return replace(case, groups=groups)


def spoilt_problem(case: ConvCase, which: Pass, operand: str, value: float) -> Problem:
    """Operands of small integers, of which one has the value in each of its cells in turn."""
    rng = np.random.default_rng(13)
    shapes = {"x": case.x, "w": case.w, "bias": case.w[:1], "dy": case.y}
    arrays = {name: rng.integers(-4, 5, s).astype(float) for name, s in shapes.items()}
    a = arrays[operand]
    axis = 0 if a.shape[1] == 1 else OPERANDS[which][operand]
    i = np.arange(a.shape[axis])
    other = (i + i // prod(a.shape[2:])) % a.shape[1 - axis]
    planes = a.reshape(*a.shape[:2], -1)
    at = (i, other) if axis == 0 else (other, i)
    planes[(*at, i % planes.shape[2])] = value
    return Problem(case, **arrays)


def bounds(problem: Problem, which: Pass, operand: str) -> tuple[Any, Any]:
    """The result, and the one for which dy goes on with zeros beyond its edges: as a rule both
    are the same.
    """
    case, dy, w = problem.case, problem.dy, problem.w
    with np.errstate(invalid="ignore"):
        exact = exact_passes(problem)[which]
        if (which, operand) != ("input", "w"):
            return exact, exact
        edge = w.shape[2] * case.axes[0].dilation  # as many zeros as any tap reaches
        wide = np.pad(dy, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
        pads = [(a.before + edge * a.stride, a.after + edge * a.stride) for a in case.axes]
        geometry = {**case.geometry, "padding": pads}
        return exact, reference.conv_grad_input(wide, w, case.x, **geometry)


@pytest.mark.parametrize("value", [np.inf, np.nan], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("which", "operand"), [(which, name) for which, names in OPERANDS.items() for name in names]
)
def test_it_goes_where_the_definition_puts_it(
    which: Pass, operand: str, kind: str, value: float
) -> None:
    wrong = []
    for taps, geometry in geometries(value):
        case = spoilt_case(kind, which, operand, taps, **geometry)
        problem = spoilt_problem(case, which, operand, value)
        exact, wide = bounds(problem, which, operand)
        for algorithm, layout in product(ALGORITHMS, LAYOUTS):
            got = problem.run(which, "float32", layout, algorithm=algorithm)
            if which != "weight":
                got = channels_first(layout, got)
            same = (got == exact) | (got == wide) | (np.isnan(got) & np.isnan(wide))
            if not same.all():
                wrong.append((algorithm, layout, taps, geometry))
    assert not wrong
