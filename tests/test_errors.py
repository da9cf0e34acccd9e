"""Wrong arrays and shapes: one line that names the argument, what came and what was expected."""

from typing import Any

import numpy as np
import pytest

import fastconv
from calls import (
    BIAS,
    DY,
    INDICES,
    POOLED,
    Call,
    Kind,
    W,
    X,
    conv,
    grad_input,
    grad_weight,
    pool,
    pool_grad,
    refused,
)
from checks import refuses

SWAPPED = np.dtype(np.float32).newbyteorder()


def with_index(value: int) -> Any:
    """Indices of which one, not the first, has this value."""
    indices = INDICES.copy()
    indices[1, 2, 0, 1] = value
    return indices


ARRAYS = (
    refused(conv(x=[[1.0]]), TypeError, "x", "list"),
    refused(conv(x=3.0), TypeError, "x", "float"),
    refused(conv(x=None), TypeError, "x", "None"),
    refused(conv(x=np.ma.masked_array(X)), TypeError, "x", "masked"),
    refused(conv(w=W.tolist()), TypeError, "w", "list"),
    refused(conv(bias=[0.0] * 4), TypeError, "bias", "list"),
    refused(grad_input(dy=DY.tolist()), TypeError, "dy", "list"),
    refused(pool(x=X.tolist()), TypeError, "x", "list"),
    refused(pool_grad(indices=INDICES.tolist()), TypeError, "indices", "list"),
    refused(conv(x=X.astype(np.int32)), TypeError, "x", "int32", "float32"),
    refused(conv(x=X.astype(np.float16)), TypeError, "x", "float16", "float32"),
    refused(conv(x=X.astype(np.complex64)), TypeError, "x", "complex64"),
    refused(conv(x=X > 0), TypeError, "x", "bool"),
    refused(conv(x=X.astype(object)), TypeError, "x", "object"),
    refused(conv(X.astype(int), W.astype(int)), TypeError, "x", "int64"),
    refused(pool(x=X.astype(np.float16)), TypeError, "x", "float16"),
    refused(pool(x=X.astype(np.complex128)), TypeError, "x", "complex128"),
    refused(conv(w=W.astype(np.float64)), TypeError, "w", "float64", "float32"),
    refused(conv(bias=BIAS.astype(float)), TypeError, "bias", "float64", "float32"),
    refused(grad_weight(dy=DY.astype(float)), TypeError, "float64", "float32"),
    refused(grad_input(w=W.astype(float)), TypeError, "float64", "float32"),
    refused(conv(x=X.astype(SWAPPED)), TypeError, "x", "byte", "astype"),
    refused(conv(w=W.astype(SWAPPED)), TypeError, "w", "byte", "astype"),
    refused(pool(x=X.astype(SWAPPED)), TypeError, "x", "byte", "astype"),
    refused(pool_grad(indices=INDICES.astype(np.int32)), TypeError, "indices", "int32", "int64"),
    refused(pool_grad(indices=POOLED), TypeError, "indices", "float32", "int64"),
)

SHAPES = (
    refused(conv(x=X[0]), ValueError, "x", "(3, 5, 7)", "x[None]"),
    refused(pool(x=X[0]), ValueError, "x", "(3, 5, 7)", "x[None]"),
    refused(conv(x=X[None]), ValueError, "x", "(1, 2, 3, 5, 7)"),
    refused(conv(x=np.ones((), np.float32)), ValueError, "x", "()"),
    refused(conv(w=W[0]), ValueError, "w", "(3, 3, 2)"),
    refused(grad_input(dy=DY[0]), ValueError, "dy", "(4, 3, 6)"),
    refused(conv(bias=BIAS[None]), ValueError, "bias", "(1, 4)", "(4,)"),
    refused(conv(bias=BIAS[:3]), ValueError, "bias", "(3,)", "(4,)"),
    refused(conv(w=W[:, :2]), ValueError, "(2, 3, 5, 7)", "(4, 2, 3, 2)"),
    refused(conv(x=X.transpose(0, 2, 3, 1)), ValueError, "(2, 5, 7, 3)", "(4, 3, 3, 2)"),
    refused(conv(layout="NHWC"), ValueError, "(2, 3, 5, 7)", "(4, 3, 3, 2)"),
    refused(conv(w=W[:, :, :0]), ValueError, "w", "(4, 3, 0, 2)"),
    refused(conv(x=X[:, :, :0], padding=2), ValueError, "x", "(2, 3, 0, 7)", str(W.shape)),
    refused(conv(groups=2), ValueError, "groups", "2", "3"),
    refused(conv(w=W[:, :1], groups=3), ValueError, "groups", "3", "4"),
    refused(conv(groups=3, w=W[:3]), ValueError, "(2, 3, 5, 7)", "(3, 3, 3, 2)"),
    refused(conv(w=np.ones((4, 3, 6, 2), np.float32)), ValueError, "(2, 3, 5, 7)", "(4, 3, 6, 2)"),
    refused(conv(dilation=(1, 7)), ValueError, "(2, 3, 5, 7)", "(4, 3, 3, 2)"),
    refused(pool(kernel_size=(2, 8)), ValueError, "(2, 3, 5, 7)", "(2, 8)"),
    refused(grad_input(dy=DY[:, :, :2]), ValueError, "dy", str(DY.shape), "(2, 4, 2, 6)"),
    refused(grad_weight(dy=DY[:1]), ValueError, "dy", str(DY.shape), "(1, 4, 3, 6)"),
    refused(grad_input(dy=DY[:, :3]), ValueError, "dy", "(2, 3, 3, 6)"),
    refused(grad_input(stride=(1, 2)), ValueError, "dy", "(2, 4, 3, 6)", "(2, 4, 3, 3)"),
    refused(grad_weight(padding=1), ValueError, "dy", "(2, 4, 3, 6)", "(2, 4, 5, 8)"),
    refused(grad_input(input_shape=(3, 5, 7)), ValueError, "input_shape", "(3, 5, 7)"),
    refused(grad_input(input_shape=(2, 2, 5, 7)), ValueError, "(2, 2, 5, 7)", str(W.shape)),
    refused(grad_input(input_shape=(2, 3, -5, 7)), ValueError, "input_shape", "-5"),
    refused(grad_input(input_shape=5), TypeError, "input_shape"),
    refused(grad_input(input_shape=(2, 3, 5.0, 7)), TypeError, "input_shape"),
    refused(grad_weight(weight_shape=(3, 3, 2)), ValueError, "weight_shape", "(3, 3, 2)"),
    refused(grad_weight(weight_shape=(4, 2, 3, 2)), ValueError, "(4, 2, 3, 2)", str(X.shape)),
    refused(
        grad_weight(weight_shape=(5, 3, 3, 2)), ValueError, "dy", str(DY.shape), "(2, 5, 3, 6)"
    ),
    refused(grad_weight(weight_shape=4), TypeError, "weight_shape"),
    refused(lambda: fastconv.conv2d_grad_bias(DY[0]), ValueError, "dy", "(4, 3, 6)"),
    refused(
        pool_grad(indices=INDICES[:, :, :1]),
        ValueError,
        "indices",
        "(2, 3, 1, 3)",
        str(POOLED.shape),
    ),
    refused(pool_grad(input_shape=(3, 5, 7)), ValueError, "input_shape", "(3, 5, 7)"),
    refused(pool_grad(input_shape=(2, 4, 5, 7)), ValueError, "(2, 4, 5, 7)", str(POOLED.shape)),
    refused(pool_grad(input_shape=(1, 3, 5, 7)), ValueError, "(1, 3, 5, 7)", str(POOLED.shape)),
    refused(pool_grad(indices=with_index(35)), ValueError, "indices", "35"),
    refused(pool_grad(indices=with_index(2**62)), ValueError, "indices", str(2**62)),
    refused(pool_grad(indices=with_index(-2)), ValueError, "indices", "-2"),
    refused(pool_grad(indices=with_index(-(2**63))), ValueError, "indices", str(-(2**63))),
)


@pytest.mark.parametrize(("call", "kind", "parts"), [*ARRAYS, *SHAPES])
def test_wrong_arrays(call: Call, kind: Kind, parts: tuple[str, ...]) -> None:
    with refuses(kind, *parts):
        call()
