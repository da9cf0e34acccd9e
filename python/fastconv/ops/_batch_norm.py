"""Batch normalisation of x (N, C, H, W), or (N, H, W, C): each channel over all other axes.

Ioffe, Szegedy: Batch Normalization, 2015, arXiv 1502.03167. Per-channel arrays are (C,).
"""

from __future__ import annotations

from typing import Literal

from .._backend.dispatch import output, resolve
from .options import Array, channel_axis, is_relu


def batch_moments(x: Array, *, layout: str = "NCHW") -> tuple[Array, Array]:
    """The mean of each channel and its biased variance: N * H * W is the divisor."""
    backend, (x,) = resolve(x=x)
    axis = channel_axis(x, layout, 2, "x")
    mean, variance = (backend.xp.empty(x.shape[axis], x.dtype) for _ in range(2))
    backend.kernels.batch_moments(x, mean, variance, axis == -1)
    return mean, variance


def batch_norm(
    x: Array,
    mean: Array,
    scale: Array,
    bias: Array,
    *,
    activation: Literal["relu"] | None = None,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """y = activation((x - mean) * scale + bias)."""
    relu = is_relu(activation)
    backend, (x, mean, scale, bias) = resolve(x=x, mean=mean, scale=scale, bias=bias)
    channels_last = channel_axis(x, layout, 2, "x") == -1
    y = output(out, backend, x.shape, x.dtype, x=x)
    backend.kernels.batch_norm_fprop(x, mean, scale, bias, y, relu, channels_last)
    return y


def batch_norm_grad(
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array,
    dweight: Array,
    dbias: Array,
    *,
    layout: str = "NCHW",
    out: Array | None = None,
) -> Array:
    """The gradients of sum(y * dy) for y = (x - mean) * rstd * weight + bias.

    mean and rstd = 1 / sqrt(variance + eps) are those of x, and depend on it. Overwrites dweight
    and dbias and returns dx.
    """
    arrays = {"dy": dy, "x": x, "mean": mean, "rstd": rstd, "weight": weight}
    backend, arrays_in = resolve(**arrays)
    channels_last = channel_axis(x, layout, 2, "x") == -1
    dx = output(out, backend, x.shape, x.dtype, dy=dy, x=x)
    backend.kernels.batch_norm_grad(*arrays_in, dx, dweight, dbias, channels_last)
    return dx
