"""Results that no memory can hold: a MemoryError that names the array and its size, whatever NumPy
says of such a shape ("array is too big" is a ValueError there)."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from checks import op, refuses, run_python
from fastconv import ops

LARGE = 2**30  # below what a geometry refuses


def zeros(*shape: int) -> Any:
    """An array that takes the memory of one element."""
    return np.broadcast_to(np.float32(0), shape)


def small(axes: int, n: int = 1, c: int = 1) -> Any:
    """One cell along each spatial axis."""
    return zeros(n, c, *(1,) * axes)


def large(axes: int, n: int = 1, c: int = 1) -> tuple[int, ...]:
    """A shape of 2**70 or 2**90 elements, 2**50 along one axis."""
    return (n if axes > 1 else 2**20, c, *(LARGE,) * axes)


STEP = {"stride": LARGE}


def conv_grad_weight(name: str, axes: int) -> Any:
    """The gradient by 2**30 filters of 2**20 channels."""
    wide, narrow = small(axes, 1, LARGE), small(axes, 1, 2**20)
    dy, x = (narrow, wide) if "transpose" in name else (wide, narrow)
    return op(name, axes)(dy, x, (LARGE, 2**20, *(1,) * axes))


# By the number of spatial axes: calls whose result is beyond any memory. What they read is small.
CALLS: dict[str, Callable[[int], Any]] = {
    "conv": lambda a: op("conv{}d", a)(small(a), small(a, 2**20), padding=LARGE),
    "conv_grad_input": lambda a: op("conv{}d_grad_input", a)(
        small(a, large(a)[0]), small(a), large(a), **STEP
    ),
    "conv_grad_weight": lambda a: conv_grad_weight("conv{}d_grad_weight", a),
    "conv_grad_bias": lambda a: op("conv{}d_grad_bias", a)(small(a, 1, 2**47)),
    "conv_grad": lambda a: op("conv{}d_grad", a)(
        small(a, 1, LARGE), small(a, 1, 2**20), zeros(LARGE, 2**20, *(1,) * a), needs="weight"
    ),
    "conv_transpose": lambda a: op("conv_transpose{}d", a)(
        zeros(2**20, 1, *(2,) * a), small(a), **STEP
    ),
    "conv_transpose_grad_input": lambda a: op("conv_transpose{}d_grad_input", a)(
        zeros(2**20, 1, *(2**12,) * a), small(a, LARGE), (2**20, LARGE, *(2**12,) * a)
    ),
    "conv_transpose_grad_weight": lambda a: conv_grad_weight("conv_transpose{}d_grad_weight", a),
    "max_pool": lambda a: op("max_pool{}d", a)(
        zeros(2**40, 2**10, *(1,) * a), 1, return_indices=True
    ),
    "max_pool_grad": lambda a: op("max_pool{}d_grad", a)(
        small(a), np.zeros((1,) * (a + 2), int), (1, 1, *(2**47,) * a)
    ),
    "avg_pool": lambda a: op("avg_pool{}d", a)(zeros(2**40, 2**10, *(1,) * a), 1),
    "avg_pool_grad": lambda a: op("avg_pool{}d_grad", a)(
        small(a, large(a)[0]), large(a), 1, **STEP
    ),
    "sum_pool_grad": lambda a: op("sum_pool{}d_grad", a)(
        small(a, large(a)[0]), large(a), 1, **STEP
    ),
    "adaptive_avg_pool": lambda a: op("adaptive_avg_pool{}d", a)(small(a, 1, 2**20), LARGE),
    "global_avg_pool_grad": lambda a: op("global_avg_pool{}d_grad", a)(
        small(a, large(a)[0]), large(a)
    ),
    "global_max_pool": lambda a: op("global_max_pool{}d", a)(zeros(2**40, 2**10, *(1,) * a)),
}


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_result_that_no_memory_holds_is_named(call: Callable[[int], Any], axes: int) -> None:
    with refuses(MemoryError, "out", "shape (", "float32", "GiB"):
        call(axes)


def test_the_same_of_what_layers_call() -> None:
    wide, high = zeros(1, 2**40), zeros(2**40, 1)
    with refuses(MemoryError, "out", f"({2**40}, {2**40})", "GiB"):
        ops.matmul(high, wide)
    with refuses(MemoryError, "out", f"({2**50},)", "GiB"):
        ops.column_sum(zeros(1, 2**50))
    with refuses(MemoryError, "out", "GiB"):
        ops.batch_norm(zeros(2**40, 1, 2**10, 1), *(np.ones(1, np.float32) for _ in range(3)))


def test_the_size_is_told() -> None:
    with refuses(MemoryError, "out", f"(1, {2**20}, {2**31}, 4)", "float32", "3.36e+07 GiB"):
        op("conv{}d", 2)(small(2), small(2, 2**20), padding=((LARGE, LARGE - 1), (2, 1)))


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, reads /proc")
def test_indices_are_named() -> None:
    said = run_python("""
        import resource
        import numpy as np
        import fastconv

        x = np.zeros((1, 1, 4096, 4096), np.int8)
        y = fastconv.max_pool2d(x, 1)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
        try:
            fastconv.max_pool2d(x, 1, return_indices=True, out=y)
        except MemoryError as error:
            print(error)
    """)
    assert "indices of shape (1, 1, 4096, 4096) and dtype int64 takes 0.125 GiB" in said


def test_an_operand_that_must_be_copied_is_named() -> None:
    cells = np.broadcast_to(np.zeros((1, 1, 1, 8), np.int8), (2**10, 1, 2**40, 8))
    x = cells[..., 1:5].view(np.float32)
    with refuses(MemoryError, "x of shape", "float32", "copied"):
        op("global_avg_pool{}d", 2)(x)
