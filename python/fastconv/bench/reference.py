"""What a peer's result is checked against: the definition, in higher precision, on a sample.

float32 results are compared with float64, float64 with long double (where the platform has one).
The error is max|result - exact| / max|exact| over the sample.
"""

from typing import Any

import numpy as np

from .peers import Array, ConvOperands, GemmOperands, Operands, PoolOperands, TrainOperands
from .peers.numpy_peer import Convnet
from .problems import Case, ConvProblem, PoolProblem

#: Elements compared, fewer where one element takes more than WORK / SAMPLES multiplications.
SAMPLES = 512
WORK = 50_000_000

_Index = tuple[int, int, int, int]


def error(case: Case, operands: Operands, result: Any) -> float:
    """Error of what a peer made of the operands."""
    if isinstance(operands, ConvOperands):
        assert isinstance(case.problem, ConvProblem)
        return conv_error(case, case.problem, operands, result)
    if isinstance(operands, PoolOperands):
        assert isinstance(case.problem, PoolProblem)
        return pool_error(case, case.problem, operands, result)
    if isinstance(operands, GemmOperands):
        return gemm_error(case, operands, result)
    return train_error(case, operands, result)


def conv_error(case: Case, p: ConvProblem, operands: ConvOperands, result: Array) -> float:
    """Error of one pass on up to SAMPLES random elements of ``result`` (in NCHW)."""
    rng = np.random.default_rng(1)
    size = max(32, min(SAMPLES, WORK // (case.flops // (2 * result.size) + 1)))
    picks = [rng.integers(0, extent, size) for extent in result.shape]
    wide = np.longdouble if case.dtype == "float64" else np.float64
    element = {"forward": _forward, "input": _grad_input, "weight": _grad_weight}[case.pass_]
    indices = zip(*(pick.tolist() for pick in picks), strict=True)
    exact = np.array([element(p, operands, index, wide) for index in indices])
    return relative_error(result[tuple(picks)], exact)


def pool_error(case: Case, p: PoolProblem, operands: PoolOperands, result: Any) -> float:
    """Error over every element; a wrong index counts as the value found there."""
    n, c, h, w = operands.x.shape
    values, indices = _max_pool(operands.x, p)
    if case.pass_ == "input":
        planes = np.arange(n * c).reshape(n, c, 1, 1) * (h * w)
        exact = np.bincount((indices + planes).ravel(), operands.dy.ravel(), n * c * h * w)
        return relative_error(result.reshape(-1), exact)
    y, chosen = result
    if chosen.min() < 0 or chosen.max() >= h * w:
        return float("inf")
    found = np.take_along_axis(operands.x.reshape(n, c, -1), chosen.reshape(n, c, -1), axis=2)
    return max(relative_error(y, values), relative_error(found.reshape(values.shape), values))


def gemm_error(case: Case, operands: GemmOperands, result: Array) -> float:
    """Error on SAMPLES random elements."""
    rng = np.random.default_rng(1)
    rows, columns = (rng.integers(0, extent, SAMPLES) for extent in result.shape)
    wide = np.longdouble if case.dtype == "float64" else np.float64
    exact = (operands.a[rows].astype(wide) * operands.b[:, columns].T).sum(axis=1)
    return relative_error(result[rows, columns], exact)


def train_error(case: Case, operands: TrainOperands, loss: float) -> float:
    """Error of the mean loss, against the same steps by NumPy in float64."""
    layers = tuple((w.astype(np.float64), b.astype(np.float64)) for w, b in operands.layers)
    exact = Convnet(layers).epoch(operands.x.astype(np.float64), operands.labels, case.batch)
    return relative_error(np.array(loss), np.array(exact))


def relative_error(result: Array, exact: Array) -> float:
    """max|result - exact| / max|exact|; infinite if the result is not finite."""
    if exact.size == 0 or not np.isfinite(result).all():
        return 0.0 if exact.size == 0 else float("inf")
    return float(np.abs(result - exact).max() / np.abs(exact).max())


def _forward(p: ConvProblem, operands: ConvOperands, index: _Index, wide: type) -> Any:
    """y[n,k,i,j] = sum over c,r,s of x[n, c, i stride + r dilation - padding, ...] w[k,c,r,s]"""
    n, k, i, j = index
    rows, r = _taps(i, p.R, p.H, p)
    columns, s = _taps(j, p.S, p.W, p)
    group = k // (p.K // p.groups)
    width = p.C // p.groups
    patch = operands.x[n, group * width : (group + 1) * width][:, rows[:, None], columns]
    return (patch.astype(wide) * operands.w[k][:, r[:, None], s]).sum()


def _grad_input(p: ConvProblem, operands: ConvOperands, index: _Index, wide: type) -> Any:
    """dx[n,c,h,w] = sum over k and the taps (r, s) that read this cell of dy[n,k,..] w[k,c,r,s]"""
    n, c, h, w = index
    rows, r = _readers(h, p.R, p.P, p)
    columns, s = _readers(w, p.S, p.Q, p)
    group, channel = divmod(c, p.C // p.groups)
    width = p.K // p.groups
    filters = slice(group * width, (group + 1) * width)
    patch = operands.dy[n, filters][:, rows[:, None], columns]
    return (patch.astype(wide) * operands.w[filters, channel][:, r[:, None], s]).sum()


def _grad_weight(p: ConvProblem, operands: ConvOperands, index: _Index, wide: type) -> Any:
    """dw[k,c,r,s] = sum over n,i,j of dy[n,k,i,j] x[n, c, i stride + r dilation - padding, ...]"""
    k, c, r, s = index
    top, left = r * p.dilation - p.padding, s * p.dilation - p.padding
    i = np.arange(p.P)
    j = np.arange(p.Q)
    i = i[(i * p.stride + top >= 0) & (i * p.stride + top < p.H)]
    j = j[(j * p.stride + left >= 0) & (j * p.stride + left < p.W)]
    channel = k // (p.K // p.groups) * (p.C // p.groups) + c
    x = operands.x[:, channel][:, (i * p.stride + top)[:, None], j * p.stride + left]
    return (x.astype(wide) * operands.dy[:, k][:, i[:, None], j]).sum()


def _taps(out: int, kernel: int, size: int, p: ConvProblem) -> tuple[Array, Array]:
    """(input cells, taps) that output cell ``out`` reads along one axis, padding left out."""
    taps = np.arange(kernel)
    cells = out * p.stride + taps * p.dilation - p.padding
    inside = (cells >= 0) & (cells < size)
    return cells[inside], taps[inside]


def _readers(cell: int, kernel: int, out: int, p: ConvProblem) -> tuple[Array, Array]:
    """(output cells, taps) that read input cell ``cell`` along one axis."""
    taps = np.arange(kernel)
    starts = cell + p.padding - taps * p.dilation
    reads = (starts % p.stride == 0) & (starts >= 0) & (starts // p.stride < out)
    return starts[reads] // p.stride, taps[reads]


def _max_pool(x: Array, p: PoolProblem) -> tuple[Array, Array]:
    """(values, indices) by comparing the cells of each window in row order."""
    n, c, rows, columns = p.output_shape(x.shape[0])
    values = np.full((n, c, rows, columns), -np.inf, x.dtype)
    indices = np.zeros(values.shape, np.int64)
    for r in range(p.kernel):
        for s in range(p.kernel):
            h = np.arange(rows) * p.stride - p.padding + r
            w = np.arange(columns) * p.stride - p.padding + s
            i = np.flatnonzero((h >= 0) & (h < p.H))
            j = np.flatnonzero((w >= 0) & (w < p.W))
            cells = np.ix_(np.arange(n), np.arange(c), i, j)
            tap = x[:, :, h[i][:, None], w[j]]
            better = tap > values[cells]
            values[cells] = np.where(better, tap, values[cells])
            places = h[i][:, None] * p.W + w[j]
            indices[cells] = np.where(better, places, indices[cells])
    return values, indices
