"""What the compiled functions refuse when called past fastconv.ops: arrays of a wrong rank."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from checks import refuses
from fastconv import _core, ops

CONV = _core.ConvGeometry((2, 3, 5, 4), (2, 3, 2, 2), (1, 1), "valid", (1, 1), 1, "NCHW")
UP = _core.transposed_geometry(
    (2, 3, 5, 4), (3, 2, 2, 2), (1, 1), "valid", (0, 0), (1, 1), 1, "NCHW"
)
POOL = _core.PoolGeometry((2, 3, 5, 4), (2, 2), (2, 2), "valid", (1, 1), False, "NCHW")
AUTO = "auto", "fp32", None


def array(rank: int, dtype: type = np.float32) -> Any:
    """Two cells along each axis."""
    return np.ones((2,) * rank, dtype)


# By the rank of an array that has axes too few or too many: one call for each array of each op.
CALLS: dict[str, Callable[[Any], Any]] = {
    "conv_fprop": lambda a: _core.conv_fprop(CONV, a, a, None, a, False, *AUTO),
    "conv_dgrad": lambda a: _core.conv_dgrad(CONV, a, a, a, *AUTO),
    "conv_wgrad": lambda a: _core.conv_wgrad(CONV, a, a, a, *AUTO),
    "conv_bgrad": lambda a: _core.conv_bgrad(a, array(1), False),
    "conv_bgrad, channels last": lambda a: _core.conv_bgrad(a, array(1), True),
    "conv_transpose_fprop": lambda a: _core.conv_transpose_fprop(UP, a, a, None, a, False, *AUTO),
    "conv_transpose_dgrad": lambda a: _core.conv_transpose_dgrad(UP, a, a, a, *AUTO),
    "conv_transpose_wgrad": lambda a: _core.conv_transpose_wgrad(UP, a, a, a, *AUTO),
    "conv_grad": lambda a: _core.conv_grad(CONV, a, a, a, a, a, array(1), *AUTO),
    "conv_transpose_grad": lambda a: _core.conv_transpose_grad(UP, a, a, a, a, a, array(1), *AUTO),
    "max_pool_fprop": lambda a: _core.max_pool_fprop(POOL, a, a, None),
    "max_pool_dgrad": lambda a: _core.max_pool_dgrad(a, a.astype(int), a.copy(), False, True),
    "max_pool_offsets_fprop": lambda a: _core.max_pool_offsets_fprop(
        POOL, a, a, a.astype(np.uint8), False
    ),
    "max_pool_offsets_dgrad": lambda a: _core.max_pool_offsets_dgrad(
        POOL, a, a.astype(np.uint8), a
    ),
    "avg_pool_fprop": lambda a: _core.avg_pool_fprop(POOL, a, a, True, 0),
    "avg_pool_dgrad": lambda a: _core.avg_pool_dgrad(POOL, a, a, True, 0),
    "batch_moments": lambda a: _core.batch_moments(a, array(1), array(1), False),
    "batch_moments, channels last": lambda a: _core.batch_moments(a, array(1), array(1), True),
    "batch_norm_fprop": lambda a: _core.batch_norm_fprop(
        a, array(1), array(1), array(1), a.copy(), False, False
    ),
    "batch_norm_grad": lambda a: _core.batch_norm_grad(
        a, a, array(1), array(1), array(1), a.copy(), array(1), array(1), False
    ),
    "matmul": lambda a: _core.matmul(a, a, None, a.copy(), False, "fp32"),
    "column_sum": lambda a: _core.column_sum(a, array(1)),
}


@pytest.mark.parametrize("rank", [0, 1, 6, 8, 12])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_array_of_a_wrong_rank_is_refused(call: Callable[[Any], Any], rank: int) -> None:
    with refuses(ValueError, str((2,) * rank)):
        call(array(rank))


def test_no_op_is_left_out() -> None:
    tested = {name.partition(",")[0] for name in CALLS}
    tested |= {"relu_fprop", "relu_dgrad", "add"}  # take any rank
    host = {"flush_denormal", "set_flush_denormal", "plan_conv", "num_threads", "set_num_threads"}
    host |= {"exchange_thread_limit", "isa", "available_isas", "blas_version", "measure_peak"}
    host |= {"conv_variants"}
    host |= {"transposed_geometry", "adaptive_geometry"}
    functions = {name for name, value in vars(_core).items() if inspect.isbuiltin(value)}
    assert functions - host == tested


@pytest.mark.parametrize("rank", [2, 3, 5, 6])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_batch_normalisation_of_a_wrong_rank_is_refused(
    rank: int, layout: Literal["NCHW", "NHWC"]
) -> None:
    x, c = array(rank), array(1)
    with refuses(ValueError, "x must have 4 axes", str(x.shape)):
        ops.batch_moments(x, layout=layout)
    with refuses(ValueError, "x must have 4 axes", str(x.shape)):
        ops.batch_norm(x, c, c, c, layout=layout)
    with refuses(ValueError, "x must have 4 axes", str(x.shape)):
        ops.batch_norm_grad(x, x, c, c, c, c.copy(), c.copy(), layout=layout)
