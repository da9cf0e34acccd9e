"""The oracle against plain loops over single cells: wrong there would be wrong everywhere."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import reference
from cases import (
    CONV_CASES,
    POOL_CASES,
    ConvCase,
    PoolCase,
    random_conv_cases,
    random_pool_cases,
)


def brute_conv2d(
    x: npt.NDArray[Any],
    w: npt.NDArray[Any],
    dy: npt.NDArray[Any],
    axes: Sequence[reference.Axis],
    groups: int,
) -> tuple[reference.Array, reference.Array, reference.Array]:
    """y, dx and dw in seven plain loops: each term of the definition is visited once."""
    y = np.zeros(dy.shape)
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    c_per_group, k_per_group = w.shape[1], max(len(w) // groups, 1)
    for n, k, p, q in np.ndindex(*dy.shape):
        for c, r, s in np.ndindex(*w.shape[1:]):
            h = p * axes[0].stride + r * axes[0].dilation - axes[0].before
            v = q * axes[1].stride + s * axes[1].dilation - axes[1].before
            if not (0 <= h < x.shape[2] and 0 <= v < x.shape[3]):
                continue
            channel = k // k_per_group * c_per_group + c
            y[n, k, p, q] += w[k, c, r, s] * x[n, channel, h, v]
            dx[n, channel, h, v] += w[k, c, r, s] * dy[n, k, p, q]
            dw[k, c, r, s] += dy[n, k, p, q] * x[n, channel, h, v]
    return y, dx, dw


def brute_max_pool2d(
    x: npt.NDArray[Any], axes: Sequence[reference.Axis]
) -> tuple[reference.Array, reference.Index]:
    """Each window's real cells listed in row order, and the rules read off that list."""
    y = np.full((*x.shape[:2], axes[0].out, axes[1].out), -np.inf)
    indices = np.full(y.shape, -1)
    for n, c, p, q in np.ndindex(*y.shape):
        rows = [p * axes[0].stride + r * axes[0].dilation for r in range(axes[0].taps)]
        columns = [q * axes[1].stride + s * axes[1].dilation for s in range(axes[1].taps)]
        real = [
            (h - axes[0].before, v - axes[1].before)
            for h in rows
            for v in columns
            if 0 <= h - axes[0].before < x.shape[2] and 0 <= v - axes[1].before < x.shape[3]
        ]
        if not real:
            continue
        values = [float(x[n, c, h, v]) for h, v in real]
        nans = [i for i, value in enumerate(values) if value != value]
        chosen = nans[0] if nans else values.index(max(values))
        y[n, c, p, q] = values[chosen]
        indices[n, c, p, q] = real[chosen][0] * x.shape[3] + real[chosen][1]
    return y, indices


SMALL = 40_000  # multiplications that plain loops do in well under a second


def tiny(case: ConvCase) -> bool:
    """Whether the seven loops over this case are short."""
    return int(np.prod(case.y)) * int(np.prod(case.w[1:])) <= SMALL


CONV = [c for c in (*CONV_CASES, *random_conv_cases(12, seed=7)) if tiny(c)]
POOL = [*POOL_CASES, *random_pool_cases(12, seed=8)]


@pytest.mark.parametrize("case", CONV, ids=str)
def test_convolution_and_its_gradients_equal_seven_plain_loops(
    case: ConvCase, rng: np.random.Generator
) -> None:
    x, w, dy = (rng.integers(-4, 5, shape).astype(float) for shape in (case.x, case.w, case.y))
    y, dx, dw = brute_conv2d(x, w, dy, case.axes, case.groups)

    np.testing.assert_array_equal(reference.conv(x, w, **case.geometry), y)
    np.testing.assert_array_equal(reference.conv_grad_input(dy, w, case.x, **case.geometry), dx)
    np.testing.assert_array_equal(reference.conv_grad_weight(dy, x, case.w, **case.geometry), dw)


@pytest.mark.parametrize("case", POOL, ids=str)
def test_max_pool_equals_plain_loops(case: PoolCase, rng: np.random.Generator) -> None:
    x = rng.integers(-3, 4, case.x).astype(float)  # few values: many ties
    x[rng.random(case.x) < 0.1] = np.nan
    x[rng.random(case.x) < 0.2] = -np.inf
    y, indices = reference.max_pool(x, case.kernel_size, **case.geometry)
    brute_y, brute_indices = brute_max_pool2d(x, case.axes)

    np.testing.assert_array_equal(y, brute_y)
    np.testing.assert_array_equal(indices, brute_indices)


def test_max_pool_gradient_adds_where_windows_overlap() -> None:
    dy = np.array([[[[1.0, 2.0, 4.0]]]])
    indices = np.array([[[[5, 5, -1]]]])
    dx = reference.max_pool_grad(dy, indices, (1, 1, 2, 3))
    np.testing.assert_array_equal(dx, [[[[0, 0, 0], [0, 0, 3]]]])


@pytest.mark.parametrize(
    ("padding", "pads"),
    [
        ("valid", (0, 0)),
        ("same", (1, 2)),
        ("same_lower", (2, 1)),
        (4, (4, 4)),
        ((5,), (5, 5)),
        (((3, 6),), (3, 6)),
    ],
)
def test_padding_forms(padding: reference.Padding, pads: tuple[int, int]) -> None:
    (axis,) = reference.axes_of([9], [4], 2, padding, 1)  # same: 5 outputs reach 12 cells, 3 more
    assert (axis.before, axis.after) == pads


def test_any_number_of_axes(rng: np.random.Generator) -> None:
    """A volume of depth one is an image, and an image of height one is a line."""
    x, w = rng.standard_normal((2, 4, 1, 1, 9)), rng.standard_normal((6, 2, 1, 1, 3))
    line = reference.conv(x[:, :, 0, 0], w[:, :, 0, 0], stride=2, padding=((1, 0),), groups=2)
    volume = reference.conv(x, w, stride=(1, 1, 2), padding=((0, 0), (0, 0), (1, 0)), groups=2)
    np.testing.assert_array_equal(volume[:, :, 0, 0], line)
