"""Pooling over lines, images and volumes.

x is (N, C, W), (N, C, H, W) or (N, C, D, H, W), or channels last with `layout`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from .. import ops
from .._backend.geometry import AxisArgument, PaddingArgument, check_layout
from .layer import Array, Layer


class _Pool(Layer):
    """What the pools share: `_op` and its gradient, over `_axes` spatial axes."""

    _op: ClassVar[str]
    _axes: ClassVar[int] = 2

    def _function(self, suffix: str = "") -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(ops, f"{self._op}{self._axes}d{suffix}")
        return function


class _MaxPool(_Pool):
    _op = "max_pool"
    _can_rectify_grad = True

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
        check_layout(layout, self._axes)
        self.kernel_size = kernel_size
        self.geometry: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "ceil_mode": ceil_mode,
            "layout": layout,
        }

    def forward(self, x: Array) -> Array:
        if not self.training:
            self._saved = None
            return self._compute(self._function(), x, kernel_size=self.kernel_size, **self.geometry)
        pool, rectified = self._function("_tracked"), self._rectifies_grad
        y: Array
        y, source = self._compute(
            pool, x, kernel_size=self.kernel_size, rectified=rectified, **self.geometry
        )
        self._saved = (source, x.shape)
        return y

    def backward(self, dy: Array) -> Array:
        source, input_shape = self._recall()
        grad = self._function("_tracked_grad")
        return self._compute(
            grad, dy, source, input_shape, kernel_size=self.kernel_size, **self.geometry
        )

    def extra_repr(self) -> str:
        return ", ".join([f"{self.kernel_size}", *self._given(self.geometry)])


class MaxPool1d(_MaxPool):
    """The largest value of each window of lines (N, C, W); the options are those of `MaxPool2d`."""

    _axes = 1

    def __init__(self, kernel_size: AxisArgument, *, layout: str = "NCW", **options: Any) -> None:
        super().__init__(kernel_size, layout=layout, **options)


class MaxPool2d(_MaxPool):
    """The largest value of each window; `stride` is the window's size unless given.

    y is (N, C, P, Q), or (N, P, Q, C). The gradient goes to the first largest cell of a window in
    row order. Geometry is that of `fastconv.max_pool2d`.
    """


class MaxPool3d(_MaxPool):
    """The largest value of each window of volumes (N, C, D, H, W); otherwise `MaxPool2d`."""

    _axes = 3

    def __init__(self, kernel_size: AxisArgument, *, layout: str = "NCDHW", **options: Any) -> None:
        super().__init__(kernel_size, layout=layout, **options)


class _AvgPool(_Pool):
    _op = "avg_pool"

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
        check_layout(layout, self._axes)
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
        return self._compute(self._function(), x, kernel_size=self.kernel_size, **self.geometry)

    def backward(self, dy: Array) -> Array:
        return self._compute(
            self._function("_grad"),
            dy,
            self._recall(),
            kernel_size=self.kernel_size,
            **self.geometry,
        )

    def extra_repr(self) -> str:
        return ", ".join([f"{self.kernel_size}", *self._given(self.geometry)])


class AvgPool1d(_AvgPool):
    """The average of each window of lines (N, C, W); the options are those of `AvgPool2d`."""

    _axes = 1

    def __init__(self, kernel_size: AxisArgument, *, layout: str = "NCW", **options: Any) -> None:
        super().__init__(kernel_size, layout=layout, **options)


class AvgPool2d(_AvgPool):
    """The average of each window; `stride` is the window's size unless given.

    y is (N, C, P, Q), or (N, P, Q, C). Geometry and divisor are those of `fastconv.avg_pool2d`.
    """


class AvgPool3d(_AvgPool):
    """The average of each window of volumes (N, C, D, H, W); otherwise `AvgPool2d`."""

    _axes = 3

    def __init__(self, kernel_size: AxisArgument, *, layout: str = "NCDHW", **options: Any) -> None:
        super().__init__(kernel_size, layout=layout, **options)


class _AdaptiveAvgPool(_Pool):
    _op = "adaptive_avg_pool"

    def __init__(self, output_size: AxisArgument, *, layout: str = "NCHW") -> None:
        check_layout(layout, self._axes)
        self.output_size = output_size
        self.layout: Any = layout

    def forward(self, x: Array) -> Array:
        self._saved = x.shape if self.training else None
        return self._compute(self._function(), x, output_size=self.output_size, layout=self.layout)

    def backward(self, dy: Array) -> Array:
        return self._compute(self._function("_grad"), dy, self._recall(), layout=self.layout)

    def extra_repr(self) -> str:
        return ", ".join([f"{self.output_size}", *self._given({"layout": self.layout})])


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The averages of `output_size` windows of lines (N, C, W); otherwise `AdaptiveAvgPool2d`."""

    _axes = 1

    def __init__(self, output_size: AxisArgument, *, layout: str = "NCW") -> None:
        super().__init__(output_size, layout=layout)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The averages of `output_size` windows that share the input evenly.

    y is (N, C, P, Q), or (N, P, Q, C), with P and Q the output size: an int, or one for each axis.
    """


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The averages of `output_size` windows of volumes; otherwise `AdaptiveAvgPool2d`."""

    _axes = 3

    def __init__(self, output_size: AxisArgument, *, layout: str = "NCDHW") -> None:
        super().__init__(output_size, layout=layout)


class _GlobalAvgPool(_AdaptiveAvgPool):
    def extra_repr(self) -> str:
        return ", ".join(self._given({"layout": self.layout}))


class GlobalAvgPool1d(_GlobalAvgPool):
    """The average of each channel of lines: y is (N, C, 1), or (N, 1, C)."""

    _axes = 1

    def __init__(self, *, layout: str = "NCW") -> None:
        super().__init__(1, layout=layout)


class GlobalAvgPool2d(_GlobalAvgPool):
    """The average of each channel: y is (N, C, 1, 1), or (N, 1, 1, C)."""

    def __init__(self, *, layout: str = "NCHW") -> None:
        super().__init__(1, layout=layout)


class GlobalAvgPool3d(_GlobalAvgPool):
    """The average of each channel of volumes: y is (N, C, 1, 1, 1), or (N, 1, 1, 1, C)."""

    _axes = 3

    def __init__(self, *, layout: str = "NCDHW") -> None:
        super().__init__(1, layout=layout)
