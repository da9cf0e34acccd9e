"""The float64 oracle: convolution and pooling from their definitions.

Written for the tests alone; it shares no code with the package. Arrays are channels first with any
number of spatial axes: x[N,C,*in], w[K,C/groups,*window], y[N,K,*out]. Along one spatial axis,
output p and filter tap r meet the input at cell p*stride + r*dilation - before.

test_reference.py says the same for two axes in plain loops over single cells, with no padded array
and no slices.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
PerAxis = int | Sequence[int]
Spatial = tuple[Any, ...]  # an index of the spatial axes: an ellipsis, then an entry for each
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Axis:
    """One spatial axis of an operation: what a window does along it."""

    size: int
    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    out: int

    @property
    def span(self) -> int:
        """Cells from a window's first to its last."""
        return (self.taps - 1) * self.dilation + 1

    @property
    def padded(self) -> int:
        """Cells to lay out so that every window is inside, also one that only ceil_mode adds."""
        last_window = (self.out - 1) * self.stride + self.span
        return max(self.before + self.size + self.after, last_window)

    @property
    def interior(self) -> slice:
        """The real cells within the padded axis."""
        return slice(self.before, self.before + self.size)

    def met_by(self, tap: int) -> slice:
        """The padded cells that `tap` meets, one for each output."""
        first = tap * self.dilation
        return slice(first, first + (self.out - 1) * self.stride + 1, self.stride)


def axes_of(
    sizes: Sequence[int],
    window: Sequence[int],
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    *,
    ceil_mode: bool = False,
) -> list[Axis]:
    """Resolve the geometry of every spatial axis."""
    count = len(sizes)
    strides, dilations = _per_axis(stride, count), _per_axis(dilation, count)
    axes = []
    for i in range(count):
        span = (window[i] - 1) * dilations[i] + 1
        before, after = _pads_of_axis(padding, i, sizes[i], span, strides[i])
        padded = before + sizes[i] + after
        out = len(range(0, padded - span + 1, strides[i]))
        if ceil_mode:
            out = max(-(-(padded - span) // strides[i]) + 1, 0)
            out -= out > 0 and (out - 1) * strides[i] >= before + sizes[i]
        axes.append(Axis(sizes[i], window[i], strides[i], dilations[i], before, after, out))
    return axes


def conv(
    x: npt.NDArray[Any],
    w: npt.NDArray[Any],
    bias: npt.NDArray[Any] | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Array:
    """y[n,k,p] = bias[k] + sum over c, r of w[k,c,r] * x[n, c, p*stride + r*dilation - before]."""
    axes = axes_of(x.shape[2:], w.shape[2:], stride, padding, dilation)
    y = _correlate(x, w, axes, groups)
    return y if bias is None else y + per_channel(bias, len(axes))


def conv_grad_input(
    dy: npt.NDArray[Any],
    w: npt.NDArray[Any],
    input_shape: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Array:
    """dx[n,c,h] = sum over k, r and the p with p*stride + r*dilation - before = h of w * dy."""
    return _scatter(dy, w, axes_of(input_shape[2:], w.shape[2:], stride, padding, dilation), groups)


def conv_grad_weight(
    dy: npt.NDArray[Any],
    x: npt.NDArray[Any],
    weight_shape: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Array:
    """dw[k,c,r] = sum over n, p of dy[n,k,p] * x[n, c, p*stride + r*dilation - before]."""
    axes = axes_of(x.shape[2:], weight_shape[2:], stride, padding, dilation)
    return _correlate_outputs(dy, x, weight_shape, axes, groups)


def conv_grad_bias(dy: npt.NDArray[Any]) -> Array:
    """db[k] = sum over n, p of dy[n,k,p]."""
    total: Array = np.sum(dy, axis=(0, *range(2, dy.ndim)), dtype=np.float64)
    return total


def transposed_axes(
    sizes: Sequence[int],
    window: Sequence[int],
    stride: PerAxis,
    padding: Padding,
    output_padding: PerAxis,
    dilation: PerAxis,
) -> list[Axis]:
    """The axes of the convolution from a transposed convolution's result (`size`) to its x (`out`).

    Cells of the result that output_padding adds may be met by no tap.
    """
    count = len(sizes)
    strides, dilations, extra = (_per_axis(v, count) for v in (stride, dilation, output_padding))
    axes = []
    for i in range(count):
        span = (window[i] - 1) * dilations[i] + 1
        big = sizes[i] * strides[i]  # what "same" gives
        before, after = _pads_of_axis(padding, i, big, span, strides[i])
        if padding not in ("same", "same_lower"):
            big = (sizes[i] - 1) * strides[i] + span + extra[i] - before - after
        axes.append(Axis(big, window[i], strides[i], dilations[i], before, after, sizes[i]))
    return axes


def conv_transpose(
    x: npt.NDArray[Any],
    w: npt.NDArray[Any],
    axes: Sequence[Axis],
    bias: npt.NDArray[Any] | None = None,
    groups: int = 1,
) -> Array:
    """Each x[n,c,p] times w[c] is added into y[n] at p*stride + r*dilation - before."""
    y = _scatter(x, w, axes, groups)
    return y if bias is None else y + per_channel(bias, len(axes))


def conv_transpose_grad(
    dy: npt.NDArray[Any],
    x: npt.NDArray[Any],
    w: npt.NDArray[Any],
    axes: Sequence[Axis],
    groups: int = 1,
) -> tuple[Array, Array]:
    """dx and dw: what each x and each w was multiplied by, times dy where it was added."""
    return _correlate(dy, w, axes, groups), _correlate_outputs(x, dy, w.shape, axes, groups)


def _correlate(
    x: npt.NDArray[Any], w: npt.NDArray[Any], axes: Sequence[Axis], groups: int
) -> Array:
    padded = _zero_padded(x, axes)
    filters = _filters_by_group(w, groups)
    y = np.zeros((len(x), groups, len(w) // groups, prod(a.out for a in axes)))
    for tap, met in _taps(axes):
        y += np.einsum("gkc,ngcp->ngkp", filters[tap], _gather(padded, met, groups))
    return y.reshape(len(x), len(w), *(a.out for a in axes))


def _scatter(dy: npt.NDArray[Any], w: npt.NDArray[Any], axes: Sequence[Axis], groups: int) -> Array:
    filters = _filters_by_group(w, groups)
    dy_by_group = dy.reshape(len(dy), groups, len(w) // groups, prod(a.out for a in axes))
    channels = w.shape[1] * groups
    dx = np.zeros((len(dy), channels, *(a.padded for a in axes)))
    for tap, met in _taps(axes):
        term = np.einsum("gkc,ngkp->ngcp", filters[tap], dy_by_group)
        dx[met] += term.reshape(len(dy), channels, *(a.out for a in axes))
    return dx[_interior(axes)]


def _correlate_outputs(
    dy: npt.NDArray[Any],
    x: npt.NDArray[Any],
    weight_shape: Sequence[int],
    axes: Sequence[Axis],
    groups: int,
) -> Array:
    padded = _zero_padded(x, axes)
    filters = weight_shape[0]
    dy_by_group = dy.reshape(len(dy), groups, filters // groups, prod(a.out for a in axes))
    dw = np.zeros(weight_shape)
    for tap, met in _taps(axes):
        term = np.einsum("ngkp,ngcp->gkc", dy_by_group, _gather(padded, met, groups))
        dw[tap] = term.reshape(weight_shape[:2])
    return dw


def max_pool(
    x: npt.NDArray[Any],
    kernel_size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> tuple[npt.NDArray[Any], Index]:
    """The largest real cell of every window and its number within the plane, in x's dtype.

    In row order: the first NaN if there is one, otherwise the first of the largest cells. A window
    with no real cell gives -inf (an integer type's minimum) and -1.
    """
    window = _per_axis(kernel_size, x.ndim - 2)
    stride = window if stride is None else stride
    axes = axes_of(x.shape[2:], window, stride, padding, dilation, ceil_mode=ceil_mode)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = np.full((*x.shape[:2], *(a.padded for a in axes)), lowest, x.dtype)
    padded[_interior(axes)] = x
    number = np.full([a.padded for a in axes], -1)
    number[_interior(axes)] = np.arange(prod(x.shape[2:])).reshape(x.shape[2:])

    y = np.full((*x.shape[:2], *(a.out for a in axes)), lowest, x.dtype)
    indices = np.full(y.shape, -1)
    for _, met in _taps(axes):
        cell, here = padded[met], number[met]
        first_nan = np.isnan(cell) & ~np.isnan(y)
        takes_over = (here >= 0) & ((indices < 0) | (cell > y) | first_nan)
        y = np.where(takes_over, cell, y)
        indices = np.where(takes_over, here, indices)
    return y, indices


def max_pool_grad(dy: npt.NDArray[Any], indices: Index, input_shape: Sequence[int]) -> Array:
    """Each dy goes to the cell that its window chose; an index of -1 takes nothing."""
    dx = np.zeros((prod(input_shape[:2]), prod(input_shape[2:])))
    plane = np.arange(len(dx))[:, None]
    cell = indices.reshape(len(dx), prod(dy.shape[2:]))
    np.add.at(dx, (plane, cell), np.where(cell < 0, 0, dy.reshape(cell.shape)))
    return dx.reshape(input_shape)


def avg_pool(
    x: npt.NDArray[Any],
    kernel_size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """The sum of every window over its divisor."""
    window = _per_axis(kernel_size, x.ndim - 2)
    stride = window if stride is None else stride
    axes = axes_of(x.shape[2:], window, stride, padding, 1, ceil_mode=ceil_mode)
    padded = _zero_padded(x, axes)
    y = np.zeros((*x.shape[:2], *(a.out for a in axes)))
    for _, met in _taps(axes):
        y += padded[met]
    return y / _divisors(axes, count_include_pad, divisor_override)


def avg_pool_grad(
    dy: npt.NDArray[Any],
    input_shape: Sequence[int],
    kernel_size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Each cell of a window takes dy over the window's divisor."""
    window = _per_axis(kernel_size, dy.ndim - 2)
    stride = window if stride is None else stride
    axes = axes_of(input_shape[2:], window, stride, padding, 1, ceil_mode=ceil_mode)
    share = dy / _divisors(axes, count_include_pad, divisor_override)
    dx = np.zeros((*input_shape[:2], *(a.padded for a in axes)))
    for _, met in _taps(axes):
        dx[met] += share
    return dx[_interior(axes)]


def _divisors(axes: Sequence[Axis], count_padding: bool, override: int | None) -> Array:
    """How many cells of each window count, at least one; or what replaces that."""
    counted = np.zeros([a.padded for a in axes])
    if count_padding:
        counted[tuple(slice(a.before + a.size + a.after) for a in axes)] = 1
    else:
        counted[_interior(axes)] = 1
    counts = np.zeros([a.out for a in axes])
    for _, met in _taps(axes):
        counts += counted[met]
    return np.maximum(counts, 1) if override is None else np.full_like(counts, override)


def adaptive_avg_pool(x: npt.NDArray[Any], output_size: PerAxis) -> Array:
    """The mean of each of the windows that share the input evenly."""
    outs = _per_axis(output_size, x.ndim - 2)
    y = np.zeros((*x.shape[:2], *outs))
    for at in np.ndindex(*outs):
        window = x[(..., *_even_window(x.shape[2:], outs, at))]
        y[(..., *at)] = window.sum(axis=tuple(range(2, x.ndim))) / prod(window.shape[2:])
    return y


def adaptive_avg_pool_grad(dy: npt.NDArray[Any], input_shape: Sequence[int]) -> Array:
    """Each cell of a window takes dy over the window's number of cells."""
    dx = np.zeros(input_shape)
    for at in np.ndindex(*dy.shape[2:]):
        window = dx[(..., *_even_window(input_shape[2:], dy.shape[2:], at))]
        share = dy[(..., *at)] / prod(window.shape[2:])
        window += share.reshape(*share.shape, *(1,) * len(at))
    return dx


def _even_window(sizes: Sequence[int], outs: Sequence[int], at: Sequence[int]) -> Spatial:
    return tuple(
        slice(o * size // out, -((o + 1) * size // -out))
        for size, out, o in zip(sizes, outs, at, strict=True)
    )


def _per_axis(value: PerAxis, count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


def _pads_of_axis(padding: Padding, i: int, size: int, span: int, stride: int) -> tuple[int, int]:
    if isinstance(padding, int):
        return padding, padding
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0
        out = -(-size // stride)
        missing = max((out - 1) * stride + span - size, 0)
        less, more = missing // 2, missing - missing // 2
        return {"same": (less, more), "same_lower": (more, less)}[padding]
    entry = padding[i]
    return (entry, entry) if isinstance(entry, int) else (entry[0], entry[1])


def _taps(axes: Sequence[Axis]) -> Iterator[tuple[Spatial, Spatial]]:
    """Every filter tap in row order, and the padded cells that it meets."""
    for tap in np.ndindex(*(a.taps for a in axes)):
        yield (..., *tap), (..., *(a.met_by(t) for a, t in zip(axes, tap, strict=True)))


def _interior(axes: Sequence[Axis]) -> Spatial:
    return (..., *(a.interior for a in axes))


def _zero_padded(x: npt.NDArray[Any], axes: Sequence[Axis]) -> Array:
    padded = np.zeros((*x.shape[:2], *(a.padded for a in axes)))
    padded[_interior(axes)] = x
    return padded


def _filters_by_group(w: npt.NDArray[Any], groups: int) -> npt.NDArray[Any]:
    return w.reshape(groups, len(w) // groups, *w.shape[1:])


def _gather(padded: Array, met: Spatial, groups: int) -> Array:
    """What one tap meets, as (N, groups, C/groups, all outputs)."""
    cells = padded[met]
    n, c = cells.shape[:2]
    return cells.reshape(n, groups, c // groups, prod(cells.shape[2:]))


def per_channel(bias: npt.NDArray[Any], spatial_axes: int) -> npt.NDArray[Any]:
    return bias.reshape(-1, *(1,) * spatial_axes)
