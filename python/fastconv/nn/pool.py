"""Two-dimensional max-pooling."""

from __future__ import annotations

from typing import Any

from .. import ops
from .._geometry import AxisArgument, PaddingArgument
from .layer import Array, Layer


class MaxPool2d(Layer):
    """The largest value of each window; `stride` is the window's size unless given.

    x is (N, C, H, W) and y (N, C, P, Q), or channels last with layout="NHWC". The gradient goes to
    the first largest cell of a window in row order. Geometry is that of `fastconv.max_pool2d`.
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
