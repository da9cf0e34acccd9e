"""Batch normalisation of x (N, C, H, W), or (N, H, W, C): each channel over all other axes.

Ioffe, Szegedy: Batch Normalization, 2015, arXiv 1502.03167. Per-channel arrays are (C,).
"""

from __future__ import annotations

from .._backend.dispatch import output, resolve
from .._checks import is_relu
from .options import A, Activation, Images, channel_axis


def batch_moments(x: A, *, layout: Images = "NCHW") -> tuple[A, A]:
    """The mean of each channel and its biased variance: N * H * W is the divisor."""
    backend, (x,) = resolve("x", x)
    axis = channel_axis(x, layout, 2, "x")
    mean, variance = (backend.xp.empty(x.shape[axis], x.dtype) for _ in range(2))
    backend.kernels.batch_moments(x, mean, variance, axis == -1)
    return mean, variance


def batch_norm(
    x: A,
    mean: A,
    scale: A,
    bias: A,
    *,
    activation: Activation = None,
    layout: Images = "NCHW",
    out: A | None = None,
) -> A:
    """y = activation((x - mean) * scale + bias)."""
    relu = is_relu(activation)
    backend, (x, mean, scale, bias) = resolve("x, mean, scale, bias", x, mean, scale, bias)
    channels_last = channel_axis(x, layout, 2, "x") == -1
    y: A = output(out, backend, x.shape, x.dtype, "x, mean, scale, bias", x, mean, scale, bias)
    backend.kernels.batch_norm_fprop(x, mean, scale, bias, y, relu, channels_last)
    return y


def batch_norm_grad(
    dy: A,
    x: A,
    mean: A,
    rstd: A,
    weight: A,
    dweight: A,
    dbias: A,
    *,
    layout: Images = "NCHW",
    out: A | None = None,
) -> A:
    """The gradients of sum(y * dy) for y = (x - mean) * rstd * weight + bias.

    mean and rstd = 1 / sqrt(variance + eps) are those of x, and depend on it. Overwrites dweight
    and dbias and returns dx.
    """
    backend, arrays = resolve("dy, x, mean, rstd, weight", dy, x, mean, rstd, weight)
    channels_last = channel_axis(arrays[1], layout, 2, "x") == -1
    names = "dy, x, mean, rstd, weight, dweight, dbias"
    dx: A = output(out, backend, x.shape, x.dtype, names, *arrays, dweight, dbias)
    backend.kernels.batch_norm_grad(*arrays, dx, dweight, dbias, channels_last)
    return dx
