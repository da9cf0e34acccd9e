"""Two-dimensional pooling. x is (N, C, H, W), or channels last with layout="NHWC"."""

from __future__ import annotations

from typing import Any

from .. import ops
from .._geometry import AxisArgument, PaddingArgument
from .layer import Array, Layer


class MaxPool2d(Layer):
    """The largest value of each window; `stride` is the window's size unless given.

    y is (N, C, P, Q), or (N, P, Q, C). The gradient goes to the first largest cell of a window in
    row order. Geometry is that of `fastconv.max_pool2d`.
    """

    def __init__(
        self,
        kernel_size: AxisArgument,
        *,
        stride: AxisArgument | None = None,
        padding: PaddingArgument = 0,
        dilation: AxisArgument = 1,
        ceil_mode: bool = False,
        layout: str = "NCHW",
    ) -> None:
        self.kernel_size = kernel_size
        self.layout = layout
        self.geometry: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "ceil_mode": ceil_mode,
            "layout": layout,
        }

    def forward(self, x: Array) -> Array:
        pooled: Any = ops.max_pool2d(
            x, self.kernel_size, return_indices=self.training, **self.geometry
        )
        y: Array
        y, indices = pooled if self.training else (pooled, None)
        self._saved = (indices, x.shape) if self.training else None
        return y

    def backward(self, dy: Array) -> Array:
        indices, input_shape = self._recall()
        return self._compute(ops.max_pool2d_grad, dy, indices, input_shape, layout=self.layout)

    def extra_repr(self) -> str:
        return ", ".join([f"{self.kernel_size}", *self._given(self.geometry)])


class AvgPool2d(Layer):
    """The average of each window; `stride` is the window's size unless given.

    y is (N, C, P, Q), or (N, P, Q, C). Geometry and divisor are those of `fastconv.avg_pool2d`.
    """

    def __init__(
        self,
        kernel_size: AxisArgument,
        *,
        stride: AxisArgument | None = None,
        padding: PaddingArgument = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        layout: str = "NCHW",
    ) -> None:
        self.kernel_size = kernel_size
        self.geometry: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "ceil_mode": ceil_mode,
            "count_include_pad": count_include_pad,
            "divisor_override": divisor_override,
            "layout": layout,
        }

    def forward(self, x: Array) -> Array:
        self._saved = x.shape if self.training else None
        return self._compute(ops.avg_pool2d, x, self.kernel_size, **self.geometry)

    def backward(self, dy: Array) -> Array:
        return self._compute(
            ops.avg_pool2d_grad, dy, self._recall(), self.kernel_size, **self.geometry
        )

    def extra_repr(self) -> str:
        return ", ".join([f"{self.kernel_size}", *self._given(self.geometry)])


class AdaptiveAvgPool2d(Layer):
    """The averages of `output_size` windows that share the input evenly.

    y is (N, C, P, Q), or (N, P, Q, C), with P and Q the output size: an int, or one for each axis.
    """

    def __init__(self, output_size: AxisArgument, *, layout: str = "NCHW") -> None:
        self.output_size = output_size
        self.layout: Any = layout

    def forward(self, x: Array) -> Array:
        self._saved = x.shape if self.training else None
        return self._compute(ops.adaptive_avg_pool2d, x, self.output_size, layout=self.layout)

    def backward(self, dy: Array) -> Array:
        return self._compute(ops.adaptive_avg_pool2d_grad, dy, self._recall(), layout=self.layout)

    def extra_repr(self) -> str:
        return ", ".join([f"{self.output_size}", *self._given({"layout": self.layout})])


class GlobalAvgPool2d(AdaptiveAvgPool2d):
    """The average of each channel: y is (N, C, 1, 1), or (N, 1, 1, C)."""

    def __init__(self, *, layout: str = "NCHW") -> None:
        super().__init__(1, layout=layout)

    def extra_repr(self) -> str:
        return ", ".join(self._given({"layout": self.layout}))
