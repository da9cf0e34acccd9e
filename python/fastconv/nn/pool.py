"""Pooling over lines, images and volumes.

x is (N, C, W), (N, C, H, W) or (N, C, D, H, W), or channels last with `layout`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypedDict, Unpack

from .. import ops
from .._backend.geometry import AxisArgument, PaddingArgument
from ..ops.options import Layout, Lines, Volumes
from .layer import Array, Layer, no_images, windows


class _MaxOptions(TypedDict, total=False):
    stride: AxisArgument | None
    padding: PaddingArgument
    dilation: AxisArgument
    ceil_mode: bool


class _AvgOptions(TypedDict, total=False):
    stride: AxisArgument | None
    padding: PaddingArgument
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None


class _Pool(Layer):
    """What the pools share: `_ops`, over `_axes` spatial axes."""

    _ops: ClassVar[tuple[Callable[..., Any], ...]]  # the function and its gradient
    _axes: ClassVar[int] = 2


class _MaxPool(_Pool):
    _with_offsets: ClassVar[tuple[Callable[..., Any], ...]]
    _can_rectify_grad = True

    def __init__(
        self,
        kernel_size: AxisArgument,
        *,
        stride: AxisArgument | None = None,
        padding: PaddingArgument = 0,
        dilation: AxisArgument = 1,
        ceil_mode: bool = False,
        layout: Layout = "NCHW",
    ) -> None:
        self.kernel_size = kernel_size
        self.geometry: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "ceil_mode": ceil_mode,
            "layout": layout,
        }
        extents = windows(kernel_size, dilation, self._axes)
        self._ops[0](no_images(layout, 1, extents, "float32"), kernel_size, **self.geometry)

    def forward(self, x: Array) -> Array:
        if not self.training:
            self._saved = None
            return self._compute(self._ops[0], x, kernel_size=self.kernel_size, **self.geometry)
        y: Array
        y, offsets = self._compute(
            self._with_offsets[0],
            x,
            kernel_size=self.kernel_size,
            rectified=self._rectifies_grad,
            **self.geometry,
        )
        self._saved = (offsets, x.shape)
        return y

    def backward(self, dy: Array) -> Array:
        offsets, input_shape = self._recall()
        return self._compute(
            self._with_offsets[1],
            dy,
            offsets,
            input_shape,
            kernel_size=self.kernel_size,
            **self.geometry,
        )

    def extra_repr(self) -> str:
        return ", ".join([f"{self.kernel_size}", *self._given(self.geometry)])


class MaxPool1d(_MaxPool):
    """The largest value of each window of lines (N, C, W); the options are those of `MaxPool2d`."""

    _ops = ops.max_pool1d, ops.max_pool1d_grad
    _with_offsets = ops.max_pool1d_offsets, ops.max_pool1d_offsets_grad
    _axes = 1

    def __init__(
        self, kernel_size: AxisArgument, *, layout: Lines = "NCW", **options: Unpack[_MaxOptions]
    ) -> None:
        super().__init__(kernel_size, layout=layout, **options)


class MaxPool2d(_MaxPool):
    """The largest value of each window; `stride` is the window's size unless given.

    y is (N, C, P, Q), or (N, P, Q, C). The gradient goes to the first largest cell of a window in
    row order. Geometry is that of `fastconv.max_pool2d`.
    """

    _ops = ops.max_pool2d, ops.max_pool2d_grad
    _with_offsets = ops.max_pool2d_offsets, ops.max_pool2d_offsets_grad


class MaxPool3d(_MaxPool):
    """The largest value of each window of volumes (N, C, D, H, W); otherwise `MaxPool2d`."""

    _ops = ops.max_pool3d, ops.max_pool3d_grad
    _with_offsets = ops.max_pool3d_offsets, ops.max_pool3d_offsets_grad
    _axes = 3

    def __init__(
        self,
        kernel_size: AxisArgument,
        *,
        layout: Volumes = "NCDHW",
        **options: Unpack[_MaxOptions],
    ) -> None:
        super().__init__(kernel_size, layout=layout, **options)


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: AxisArgument,
        *,
        stride: AxisArgument | None = None,
        padding: PaddingArgument = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        layout: Layout = "NCHW",
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
        extents = windows(kernel_size, 1, self._axes)
        self._ops[0](no_images(layout, 1, extents, "float32"), kernel_size, **self.geometry)

    def forward(self, x: Array) -> Array:
        self._saved = x.shape if self.training else None
        return self._compute(self._ops[0], x, kernel_size=self.kernel_size, **self.geometry)

    def backward(self, dy: Array) -> Array:
        return self._compute(
            self._ops[1],
            dy,
            self._recall(),
            kernel_size=self.kernel_size,
            **self.geometry,
        )

    def extra_repr(self) -> str:
        return ", ".join([f"{self.kernel_size}", *self._given(self.geometry)])


class AvgPool1d(_AvgPool):
    """The average of each window of lines (N, C, W); the options are those of `AvgPool2d`."""

    _ops = ops.avg_pool1d, ops.avg_pool1d_grad
    _axes = 1

    def __init__(
        self, kernel_size: AxisArgument, *, layout: Lines = "NCW", **options: Unpack[_AvgOptions]
    ) -> None:
        super().__init__(kernel_size, layout=layout, **options)


class AvgPool2d(_AvgPool):
    """The average of each window; `stride` is the window's size unless given.

    y is (N, C, P, Q), or (N, P, Q, C). Geometry and divisor are those of `fastconv.avg_pool2d`.
    """

    _ops = ops.avg_pool2d, ops.avg_pool2d_grad


class AvgPool3d(_AvgPool):
    """The average of each window of volumes (N, C, D, H, W); otherwise `AvgPool2d`."""

    _ops = ops.avg_pool3d, ops.avg_pool3d_grad
    _axes = 3

    def __init__(
        self,
        kernel_size: AxisArgument,
        *,
        layout: Volumes = "NCDHW",
        **options: Unpack[_AvgOptions],
    ) -> None:
        super().__init__(kernel_size, layout=layout, **options)


class _AdaptiveAvgPool(_Pool):
    def __init__(self, output_size: AxisArgument, *, layout: Layout = "NCHW") -> None:
        self.output_size = output_size
        self.layout: Any = layout
        images = no_images(layout, 1, (1,) * self._axes, "float32")
        self._ops[0](images, output_size, layout=layout)

    def forward(self, x: Array) -> Array:
        self._saved = x.shape if self.training else None
        return self._compute(self._ops[0], x, output_size=self.output_size, layout=self.layout)

    def backward(self, dy: Array) -> Array:
        return self._compute(self._ops[1], dy, self._recall(), layout=self.layout)

    def extra_repr(self) -> str:
        return ", ".join([f"{self.output_size}", *self._given({"layout": self.layout})])


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """The averages of `output_size` windows of lines (N, C, W); otherwise `AdaptiveAvgPool2d`."""

    _ops = ops.adaptive_avg_pool1d, ops.adaptive_avg_pool1d_grad
    _axes = 1

    def __init__(self, output_size: AxisArgument, *, layout: Lines = "NCW") -> None:
        super().__init__(output_size, layout=layout)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """The averages of `output_size` windows that share the input evenly.

    y is (N, C, P, Q), or (N, P, Q, C), with P and Q the output size: an int, or one for each axis.
    """

    _ops = ops.adaptive_avg_pool2d, ops.adaptive_avg_pool2d_grad


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """The averages of `output_size` windows of volumes; otherwise `AdaptiveAvgPool2d`."""

    _ops = ops.adaptive_avg_pool3d, ops.adaptive_avg_pool3d_grad
    _axes = 3

    def __init__(self, output_size: AxisArgument, *, layout: Volumes = "NCDHW") -> None:
        super().__init__(output_size, layout=layout)


class _GlobalAvgPool(_AdaptiveAvgPool):
    def extra_repr(self) -> str:
        return ", ".join(self._given({"layout": self.layout}))


class GlobalAvgPool1d(_GlobalAvgPool):
    """The average of each channel of lines: y is (N, C, 1), or (N, 1, C)."""

    _ops = ops.adaptive_avg_pool1d, ops.adaptive_avg_pool1d_grad
    _axes = 1

    def __init__(self, *, layout: Lines = "NCW") -> None:
        super().__init__(1, layout=layout)


class GlobalAvgPool2d(_GlobalAvgPool):
    """The average of each channel: y is (N, C, 1, 1), or (N, 1, 1, C)."""

    _ops = ops.adaptive_avg_pool2d, ops.adaptive_avg_pool2d_grad

    def __init__(self, *, layout: Layout = "NCHW") -> None:
        super().__init__(1, layout=layout)


class GlobalAvgPool3d(_GlobalAvgPool):
    """The average of each channel of volumes: y is (N, C, 1, 1, 1), or (N, 1, 1, 1, C)."""

    _ops = ops.adaptive_avg_pool3d, ops.adaptive_avg_pool3d_grad
    _axes = 3

    def __init__(self, *, layout: Volumes = "NCDHW") -> None:
        super().__init__(1, layout=layout)
