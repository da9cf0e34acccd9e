"""Convolutions with their bias and ReLU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, TypedDict, Unpack

import numpy as np
from numpy.typing import DTypeLike

from .. import ops
from .._backend.geometry import AxisArgument, PaddingArgument, paddings, per_axis
from .._checks import is_relu, positive
from ..ops.options import Activation, Layout, Lines, Volumes
from . import init
from .layer import Array, Layer, Parameter, no_images, windows


class _Options(TypedDict, total=False):
    """The keywords of every convolution but the layout."""

    stride: AxisArgument
    padding: PaddingArgument
    dilation: AxisArgument
    groups: int
    bias: bool
    activation: Activation
    dtype: DTypeLike
    rng: init.RNG


class _TransposedOptions(_Options, total=False):
    output_padding: AxisArgument


class _Convolution(Layer):
    """What the convolutions share; `_ops`, the forward pass and the gradients by input, weight and
    bias, are called with `geometry`."""

    _ops: ClassVar[tuple[Callable[..., Any], ...]]
    _axes: ClassVar[int] = 2

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
        activation: Activation = None,
        layout: Layout = "NCHW",
        dtype: DTypeLike = "float32",
        rng: init.RNG = None,
    ) -> None:
        c = positive("in_channels", in_channels)
        k = positive("out_channels", out_channels)
        if c % positive("groups", groups) or k % groups:
            raise ValueError(
                f"groups must divide in_channels {c} and out_channels {k}, got {groups}"
            )
        extents = per_axis(kernel_size, "kernel_size", self._axes)
        size = tuple(positive("kernel_size", extent) for extent in extents)
        is_relu(activation)  # or it is refused
        self.activation = activation
        self.geometry: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "layout": layout,
        }
        shape = self._weight_shape(c, k, groups, size)
        self._check_geometry(c, shape)
        self.weight = Parameter("weight", init.for_activation(activation, shape, rng, dtype))
        self.bias = Parameter("bias", np.zeros(k, self.weight.data.dtype)) if bias else None

    def forward(self, x: Array) -> Array:
        bias = None if self.bias is None else self.bias.data
        y = self._compute(
            self._ops[0], x, self.weight.data, bias, activation=self.activation, **self.geometry
        )
        self._saved = (x, y) if self.training else None
        return y

    def backward(self, dy: Array) -> Array | None:
        x, y = self._recall()
        weight, bias = self.weight, self.bias
        _, grad_input, grad_weight, grad_bias = self._ops
        dy = self._before_activation(dy, y)
        if bias is not None:
            grad_bias(dy, layout=self.geometry["layout"], out=bias.grad)
        grad_weight(dy, x, weight.data.shape, **self.geometry, out=weight.grad)
        if not self.needs_input_grad:
            return None
        return self._compute(grad_input, dy, weight.data, x.shape, **self.geometry)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return 2 * math.prod(output_shape) * math.prod(self.weight.data.shape[1:])

    def extra_repr(self) -> str:
        c, k = self._channels()
        size = self.weight.data.shape[2:]
        options = {**self.geometry, "bias": self.bias is not None, "activation": self.activation}
        shown = size[0] if len(set(size)) == 1 else size
        return ", ".join([f"{c}, {k}, kernel_size={shown}", *self._given(options)])

    def _weight_shape(self, c: int, k: int, groups: int, size: tuple[int, ...]) -> tuple[int, ...]:
        return (k, c // groups, *size)

    def _channels(self) -> tuple[int, int]:
        """Those of x and of y."""
        k, c = self.weight.data.shape[:2]
        return c * self.geometry["groups"], k

    def _check_geometry(self, c: int, weight_shape: tuple[int, ...]) -> None:
        """Let the operator refuse what it would refuse of any image."""
        layout, extents = self.geometry["layout"], self._extents(weight_shape[2:])
        weight = np.broadcast_to(np.float32(0), weight_shape)
        self._ops[0](no_images(layout, c, extents, "float32"), weight, **self.geometry)

    def _extents(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Of an image that is large enough for one output."""
        return windows(size, self.geometry["dilation"], self._axes)


class Conv1d(_Convolution):
    """y = activation(conv1d(x, weight) + bias).

    x is (N, in_channels, W) and y (N, out_channels, Q), or channels last with layout="NWC".
    `weight` is (out_channels, in_channels/groups, S) in either layout, `bias` (out_channels,).
    Geometry is that of `fastconv.conv1d`; the other options are those of `Conv2d`.
    """

    _ops = (
        ops.conv1d,
        ops.conv1d_grad_input,
        ops.conv1d_grad_weight,
        ops.conv1d_grad_bias,
    )
    _axes = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: AxisArgument,
        *,
        layout: Lines = "NCW",
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, layout=layout, **options)


class Conv2d(_Convolution):
    """y = activation(conv2d(x, weight) + bias).

    x is (N, in_channels, H, W) and y (N, out_channels, P, Q), or channels last with
    layout="NHWC". `weight` is (out_channels, in_channels/groups, R, S) in either layout, `bias`
    (out_channels,). Geometry is that of `fastconv.conv2d`. `activation` is None or "relu", computed
    by the same kernel call.
    """

    _ops = (
        ops.conv2d,
        ops.conv2d_grad_input,
        ops.conv2d_grad_weight,
        ops.conv2d_grad_bias,
    )


class Conv3d(_Convolution):
    """y = activation(conv3d(x, weight) + bias).

    x is (N, in_channels, D, H, W) and y (N, out_channels, Z, P, Q), or channels last with
    layout="NDHWC". `weight` is (out_channels, in_channels/groups, T, R, S) in either layout, `bias`
    (out_channels,). Geometry is that of `fastconv.conv3d`; the other options are those of `Conv2d`.
    """

    _ops = (
        ops.conv3d,
        ops.conv3d_grad_input,
        ops.conv3d_grad_weight,
        ops.conv3d_grad_bias,
    )
    _axes = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: AxisArgument,
        *,
        layout: Volumes = "NCDHW",
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, layout=layout, **options)


class _ConvTranspose(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: AxisArgument,
        *,
        output_padding: AxisArgument = 0,
        layout: Layout = "NCHW",
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, layout=layout, **options)
        self.geometry["output_padding"] = output_padding
        self._check_geometry(in_channels, self.weight.data.shape)

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        return super().flops(output_shape, input_shape)

    def _weight_shape(self, c: int, k: int, groups: int, size: tuple[int, ...]) -> tuple[int, ...]:
        return (c, k // groups, *size)

    def _channels(self) -> tuple[int, int]:
        c, k = self.weight.data.shape[:2]
        return c, k * self.geometry["groups"]

    def _extents(self, size: tuple[int, ...]) -> tuple[int, ...]:
        pads = paddings(self.geometry["padding"], self._axes)
        if isinstance(pads, str):
            return (1,) * self._axes
        return tuple(1 + max(0, before + after) for before, after in pads)


class ConvTranspose1d(_ConvTranspose):
    """y = activation(conv_transpose1d(x, weight) + bias).

    x is (N, in_channels, W) and y (N, out_channels, Q), or channels last with layout="NWC".
    `weight` is (in_channels, out_channels/groups, S) in either layout; otherwise `ConvTranspose2d`.
    """

    _ops = (
        ops.conv_transpose1d,
        ops.conv_transpose1d_grad_input,
        ops.conv_transpose1d_grad_weight,
        ops.conv_transpose1d_grad_bias,
    )
    _axes = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: AxisArgument,
        *,
        layout: Lines = "NCW",
        **options: Unpack[_TransposedOptions],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, layout=layout, **options)


class ConvTranspose2d(_ConvTranspose):
    """y = activation(conv_transpose2d(x, weight) + bias).

    x is (N, in_channels, H, W) and y (N, out_channels, P, Q), or channels last with layout="NHWC".
    `weight` is (in_channels, out_channels/groups, R, S) in either layout, `bias` (out_channels,).
    Geometry is that of `fastconv.conv_transpose2d`; the other options are those of `Conv2d`.
    """

    _ops = (
        ops.conv_transpose2d,
        ops.conv_transpose2d_grad_input,
        ops.conv_transpose2d_grad_weight,
        ops.conv_transpose2d_grad_bias,
    )


class ConvTranspose3d(_ConvTranspose):
    """y = activation(conv_transpose3d(x, weight) + bias).

    x is (N, in_channels, D, H, W) and y (N, out_channels, Z, P, Q), or channels last with
    layout="NDHWC". `weight` is (in_channels, out_channels/groups, T, R, S) in either layout;
    otherwise `ConvTranspose2d`.
    """

    _ops = (
        ops.conv_transpose3d,
        ops.conv_transpose3d_grad_input,
        ops.conv_transpose3d_grad_weight,
        ops.conv_transpose3d_grad_bias,
    )
    _axes = 3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: AxisArgument,
        *,
        layout: Volumes = "NCDHW",
        **options: Unpack[_TransposedOptions],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, layout=layout, **options)
