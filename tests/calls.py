"""Calls with some arguments replaced by wrong ones, and what the refusal has to say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv

Call = Callable[[], Any]
Kind = type[Exception] | tuple[type[Exception], ...]

X = np.ones((2, 3, 5, 7), np.float32)
W = np.ones((4, 3, 3, 2), np.float32)
BIAS = np.ones(4, np.float32)
DY = np.ones((2, 4, 3, 6), np.float32)
POOLED = np.ones((2, 3, 2, 3), np.float32)
INDICES = np.zeros((2, 3, 2, 3), np.int64)


def refused(call: Call, kind: Kind, *parts: str) -> Any:
    """A parameter set: a call, the exceptions it may raise, and what their message mentions."""
    return pytest.param(call, kind, parts, id="-".join(parts))


def conv(x: Any = X, w: Any = W, bias: Any = None, **keywords: Any) -> Call:
    """A call of conv2d with some arguments replaced."""
    return lambda: fastconv.conv2d(x, w, bias, **keywords)


def grad_input(dy: Any = DY, w: Any = W, input_shape: Any = X.shape, **keywords: Any) -> Call:
    """A call of conv2d_grad_input with some arguments replaced."""
    return lambda: fastconv.conv2d_grad_input(dy, w, input_shape, **keywords)


def grad_weight(dy: Any = DY, x: Any = X, weight_shape: Any = W.shape, **keywords: Any) -> Call:
    """A call of conv2d_grad_weight with some arguments replaced."""
    return lambda: fastconv.conv2d_grad_weight(dy, x, weight_shape, **keywords)


def grad(**keywords: Any) -> Call:
    """A call of conv2d_grad with keywords."""
    return lambda: fastconv.conv2d_grad(DY, X, W, **keywords)


def pool(x: Any = X, kernel_size: Any = 2, **keywords: Any) -> Call:
    """A call of max_pool2d with some arguments replaced."""
    return lambda: fastconv.max_pool2d(x, kernel_size, **keywords)


def pool_grad(
    dy: Any = POOLED, indices: Any = INDICES, input_shape: Any = X.shape, **keywords: Any
) -> Call:
    """A call of max_pool2d_grad with some arguments replaced."""
    return lambda: fastconv.max_pool2d_grad(dy, indices, input_shape, **keywords)


def explain(op: str = "conv2d", w_shape: Any = W.shape, **keywords: Any) -> Call:
    """A call of explain with some arguments replaced."""
    return lambda: fastconv.explain(op, X.shape, w_shape, **keywords)
