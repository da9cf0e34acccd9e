"""JAX on the CPU: lax.conv_general_dilated and its vector-Jacobian products, each one jitted call.

XLA takes as many threads as the process may use CPUs, so the process is held to that many.
"""

# mypy: disable-error-code="import-not-found"

import os
from typing import Any

import numpy as np

from fastconv.bench.peers import (
    Call,
    ConvOperands,
    GemmOperands,
    PoolOperands,
    Unsupported,
    to_layout,
    to_nchw,
)
from fastconv.bench.problems import Case, ConvProblem, GemmProblem, PoolProblem


class Runner:
    def __init__(self, threads: int, algorithm: str) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["JAX_ENABLE_X64"] = "1"
        import jax  # after the above, which it reads when it is imported

        self._jax: Any = jax
        self.version = jax.__version__
        self.details: dict[str, str] = {}

    def conv(self, case: Case, problem: ConvProblem, operands: ConvOperands) -> Call:
        p, w = problem, operands.w
        x, dy = to_layout(case, operands.x), to_layout(case, operands.dy)
        filters = "OIHW"
        if case.layout == "NHWC":
            w, filters = np.ascontiguousarray(w.transpose(2, 3, 1, 0)), "HWIO"

        def convolve(x: Any, w: Any) -> Any:
            return self._jax.lax.conv_general_dilated(
                x,
                w,
                (p.stride, p.stride),
                [(p.padding, p.padding)] * 2,
                rhs_dilation=(p.dilation, p.dilation),
                dimension_numbers=(case.layout, filters, case.layout),
                feature_group_count=p.groups,
            )

        def grad_input(x: Any, w: Any, dy: Any) -> Any:
            return self._jax.vjp(lambda x: convolve(x, w), x)[1](dy)[0]

        def grad_weight(x: Any, w: Any, dy: Any) -> Any:
            return self._jax.vjp(lambda w: convolve(x, w), w)[1](dy)[0]

        if case.pass_ == "forward":
            return self._call(convolve, x, w)
        return self._call(grad_input if case.pass_ == "input" else grad_weight, x, w, dy)

    def max_pool(self, case: Case, problem: PoolProblem, operands: PoolOperands) -> Call:
        if case.pass_ == "forward":
            raise Unsupported("JAX has no max-pool with indices")
        p, x, dy = problem, to_layout(case, operands.x), to_layout(case, operands.dy)

        def axes(number: Any, other: Any) -> list[Any]:
            """One value for each axis: the number for H and W."""
            return [number if axis in "HW" else other for axis in case.layout]

        window, strides = axes(p.kernel, 1), axes(p.stride, 1)
        pads = axes((p.padding, p.padding), (0, 0))
        lax = self._jax.lax

        def pool(x: Any) -> Any:
            return lax.reduce_window(x, -np.inf, lax.max, window, strides, pads)

        return self._call(lambda x, dy: self._jax.vjp(pool, x)[1](dy)[0], x, dy)

    def matmul(self, case: Case, problem: GemmProblem, operands: GemmOperands) -> Call:
        return self._call(self._jax.numpy.matmul, *operands)

    def to_numpy(self, case: Case, result: Any) -> Any:
        array = np.asarray(result)
        if case.layout == "NHWC" and case.pass_ == "weight":
            return array.transpose(3, 2, 0, 1)
        return to_nchw(case, array)

    def _call(self, function: Any, *operands: Any) -> Call:
        """The compiled function on operands that are on the device already."""
        compiled = self._jax.jit(function)
        arrays = [self._jax.device_put(operand) for operand in operands]
        return lambda: compiled(*arrays).block_until_ready()
