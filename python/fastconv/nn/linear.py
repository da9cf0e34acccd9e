"""The dense layer."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from .. import ops
from .._backend.dispatch import resolve
from .._checks import is_relu, positive
from ..ops.options import Activation
from . import init
from .layer import Array, Layer, Parameter


class Linear(Layer):
    """y = activation(x weightᵀ + bias).

    x is (N, in_features), y (N, out_features), `weight` (out_features, in_features), `bias`
    (out_features,). `activation` is None or "relu", computed by the same kernel call.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: Activation = None,
        dtype: DTypeLike = "float32",
        rng: init.RNG = None,
    ) -> None:
        shape = (positive("out_features", out_features), positive("in_features", in_features))
        is_relu(activation)  # or it is refused
        self.activation = activation
        self.weight = Parameter("weight", init.for_activation(activation, shape, rng, dtype))
        self.bias = Parameter("bias", np.zeros(shape[0], self.weight.data.dtype)) if bias else None

    def forward(self, x: Array) -> Array:
        _, (x,) = resolve("x", x)
        features = self.weight.data.shape[1]
        if x.ndim != 2 or x.shape[1] != features:
            hint = "; put Flatten() before Linear" if x.ndim > 2 else ""
            raise ValueError(f"x has shape {x.shape}, expected (batch, {features}){hint}")
        bias = None if self.bias is None else self.bias.data
        y = self._compute(ops.matmul, x, self.weight.data.T, bias, activation=self.activation)
        self._saved = (x, y) if self.training else None
        return y

    def backward(self, dy: Array) -> Array | None:
        x, y = self._recall()
        dy = self._before_activation(dy, y)
        if self.bias is not None:
            ops.column_sum(dy, out=self.bias.grad)
        ops.matmul(dy.T, x, out=self.weight.grad)
        return self._compute(ops.matmul, dy, self.weight.data) if self.needs_input_grad else None

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        in_features: int = self.weight.data.shape[1]
        return 2 * math.prod(output_shape) * in_features

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.data.shape
        options = {"bias": self.bias is not None, "activation": self.activation}
        return ", ".join([f"{in_features}, {out_features}", *self._given(options)])
