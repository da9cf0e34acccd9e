"""Two-dimensional convolution with its bias and ReLU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import ops
from .._geometry import AxisArgument, PaddingArgument, per_axis
from . import init
from .layer import Array, Layer, Parameter, check_activation, positive


class Conv2d(Layer):
    """y = activation(conv2d(x, weight) + bias).

    x is (N, in_channels, H, W) and y (N, out_channels, P, Q), or channels last with
    layout="NHWC". `weight` is (out_channels, in_channels/groups, R, S) in either layout, `bias`
    (out_channels,). Geometry is that of `fastconv.conv2d`. `activation` is None or "relu", computed
    by the same kernel call.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: AxisArgument,
        *,
        stride: AxisArgument = 1,
        padding: PaddingArgument = 0,
        dilation: AxisArgument = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str | None = None,
        layout: str = "NCHW",
        dtype: DTypeLike = "float32",
        rng: init.RNG = None,
    ) -> None:
        c = positive("in_channels", in_channels)
        k = positive("out_channels", out_channels)
        if c % positive("groups", groups) or k % groups:
            raise ValueError(
                f"groups is {groups}, which must divide in_channels {c} and out_channels {k}"
            )
        r, s = _filter_size(kernel_size)
        self.activation = check_activation(activation)
        shape = (k, c // groups, r, s)
        self.weight = Parameter("weight", init.for_activation(activation, shape, rng, dtype))
        self.bias = Parameter("bias", np.zeros(k, self.weight.data.dtype)) if bias else None
        self.geometry: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "layout": layout,
        }

    def forward(self, x: Array) -> Array:
        bias = None if self.bias is None else self.bias.data
        y = self._compute(
            ops.conv2d, x, self.weight.data, bias, activation=self.activation, **self.geometry
        )
        self._saved = (x, y) if self.training else None
        return y

    def backward(self, dy: Array) -> Array | None:
        x, y = self._recall()
        weight, bias = self.weight, self.bias
        if self.activation == "relu":
            dy = self._compute(ops.relu_grad, dy, y)
        if bias is not None:
            ops.conv2d_grad_bias(dy, layout=self.geometry["layout"], out=bias.grad)
        ops.conv2d_grad_weight(dy, x, weight.data.shape, **self.geometry, out=weight.grad)
        if not self.needs_input_grad:
            return None
        return self._compute(ops.conv2d_grad_input, dy, weight.data, x.shape, **self.geometry)

    def flops(self, output_shape: tuple[int, ...]) -> int:
        return 2 * math.prod(output_shape) * math.prod(self.weight.data.shape[1:])

    def extra_repr(self) -> str:
        k, c, r, s = self.weight.data.shape
        options = {**self.geometry, "bias": self.bias is not None, "activation": self.activation}
        size = r if r == s else (r, s)
        channels = f"{c * self.geometry['groups']}, {k}"
        return ", ".join([channels, f"kernel_size={size}", *self._given(options)])


def _filter_size(kernel_size: AxisArgument) -> tuple[int, int]:
    height, width = per_axis(kernel_size, "kernel_size", 2)
    return positive("kernel_size", height), positive("kernel_size", width)
