"""NumPy: pad, sliding_window_view, one contiguous copy (im2col), batched matmul.

The lowering of Chellapilla, Puri and Simard (2006), in the fastest form plain NumPy allows.
L = C/groups * R * S is the length of one filter.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..problems import Case, ConvProblem, GemmProblem, PoolProblem, TrainProblem
from . import (
    DECAY,
    EPSILON,
    RATE,
    Array,
    Call,
    ConvOperands,
    GemmOperands,
    PoolOperands,
    TrainOperands,
    to_layout,
    to_nchw,
)


class Runner:
    def __init__(self, threads: int, algorithm: str) -> None:
        self.version = np.__version__
        config: Any = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        self.details = {"blas": f"{blas['name']} {blas['version']}"}

    def conv(self, case: Case, problem: ConvProblem, operands: ConvOperands) -> Call:
        x, dy = to_layout(case, operands.x), to_layout(case, operands.dy)
        w, p = operands.w, problem
        if case.layout == "NCHW":
            calls: dict[str, Call] = {
                "forward": lambda: forward_nchw(x, w, p),
                "input": lambda: grad_input_nchw(dy, w, p),
                "weight": lambda: grad_weight_nchw(dy, x, p),
            }
        else:
            calls = {
                "forward": lambda: forward_nhwc(x, w, p),
                "input": lambda: grad_input_nhwc(dy, w, p),
                "weight": lambda: grad_weight_nhwc(dy, x, p),
            }
        return calls[case.pass_]

    def max_pool(self, case: Case, problem: PoolProblem, operands: PoolOperands) -> Call:
        x, dy = to_layout(case, operands.x), to_layout(case, operands.dy)
        if case.pass_ == "forward":
            return lambda: max_pool(x, problem, case.layout)
        _, indices = max_pool(x, problem, case.layout)
        return lambda: max_pool_grad(dy, indices, x.shape, problem, case.layout)

    def matmul(self, case: Case, problem: GemmProblem, operands: GemmOperands) -> Call:
        return lambda: np.matmul(*operands)

    def train(self, case: Case, problem: TrainProblem, operands: TrainOperands) -> Call:
        network = Convnet(operands.layers)
        return lambda: network.epoch(operands.x, operands.labels, case.batch)

    def to_numpy(self, case: Case, result: Any) -> Any:
        return to_nchw(case, result)


def _windows(x: Array, p: ConvProblem, axis: int) -> Array:
    """Read-only view of the padded x: the two axes at ``axis`` become P and Q; R, S come last."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = pads[axis + 1] = (p.padding, p.padding)
    padded = np.pad(x, pads) if p.padding else x
    spans = p.dilation * (p.R - 1) + 1, p.dilation * (p.S - 1) + 1
    view = sliding_window_view(padded, spans, axis=(axis, axis + 1))
    cells = slice(None, None, p.stride)
    taps = slice(None, None, p.dilation)
    return view[(slice(None),) * axis + (cells, cells, ..., taps, taps)]


def forward_nchw(x: Array, w: Array, p: ConvProblem) -> Array:
    n, g = x.shape[0], p.groups
    windows = _windows(x, p, 2).transpose(0, 1, 4, 5, 2, 3)  # (N, C, R, S, P, Q)
    columns = np.ascontiguousarray(windows).reshape(n, g, -1, p.P * p.Q)  # (N, G, L, PQ)
    y: Array = np.matmul(w.reshape(g, p.K // g, -1), columns)  # (N, G, K/G, PQ)
    return y.reshape(n, p.K, p.P, p.Q)


def grad_input_nchw(dy: Array, w: Array, p: ConvProblem) -> Array:
    n, g = dy.shape[0], p.groups
    filters = w.reshape(g, p.K // g, -1).swapaxes(1, 2)
    dcolumns = np.matmul(filters, dy.reshape(n, g, p.K // g, -1))  # (N, G, L, PQ)
    taps = dcolumns.reshape(n, p.C, p.R, p.S, p.P, p.Q)
    dx = np.zeros((n, p.C, p.H + 2 * p.padding, p.W + 2 * p.padding), dy.dtype)
    for r in range(p.R):
        for s in range(p.S):
            dx[:, :, *_tap(p, r, s)] += taps[:, :, r, s]
    return dx[:, :, *_inner(p)]


def grad_weight_nchw(dy: Array, x: Array, p: ConvProblem) -> Array:
    n, g = x.shape[0], p.groups
    windows = _windows(x, p, 2).transpose(0, 1, 4, 5, 2, 3)
    columns = np.ascontiguousarray(windows).reshape(n, g, -1, p.P * p.Q)  # (N, G, L, PQ)
    products = np.matmul(dy.reshape(n, g, p.K // g, -1), columns.swapaxes(2, 3))
    dw: Array = products.sum(axis=0)  # (G, K/G, L)
    return dw.reshape(p.weight_shape)


def _columns_nhwc(x: Array, p: ConvProblem) -> Array:
    """(G, N P Q, L) with L ordered R, S, C/G: a group's channels are neighbours in memory."""
    grouped = x.reshape(*x.shape[:3], p.groups, -1)
    windows = _windows(grouped, p, 1).transpose(3, 0, 1, 2, 5, 6, 4)  # (G, N, P, Q, R, S, C/G)
    return np.ascontiguousarray(windows).reshape(p.groups, x.shape[0] * p.P * p.Q, -1)


def _filters_nhwc(w: Array, p: ConvProblem) -> Array:
    """(G, K/G, L) with L ordered R, S, C/G."""
    return w.transpose(0, 2, 3, 1).reshape(p.groups, p.K // p.groups, -1)


def _pixels_nhwc(dy: Array, p: ConvProblem) -> Array:
    """(G, N P Q, K/G)"""
    return dy.reshape(-1, p.groups, p.K // p.groups).swapaxes(0, 1)


def forward_nhwc(x: Array, w: Array, p: ConvProblem) -> Array:
    y: Array = np.matmul(_columns_nhwc(x, p), _filters_nhwc(w, p).swapaxes(1, 2))  # (G, NPQ, K/G)
    return y.swapaxes(0, 1).reshape(x.shape[0], p.P, p.Q, p.K)


def grad_input_nhwc(dy: Array, w: Array, p: ConvProblem) -> Array:
    n, g, pad = dy.shape[0], p.groups, 2 * p.padding
    dcolumns = np.matmul(_pixels_nhwc(dy, p), _filters_nhwc(w, p))  # (G, NPQ, L)
    taps = dcolumns.reshape(g, n, p.P, p.Q, p.R, p.S, -1)
    dx = np.zeros((n, p.H + pad, p.W + pad, g, p.C // g), dy.dtype)
    for r in range(p.R):
        for s in range(p.S):
            dx[:, *_tap(p, r, s)] += taps[:, :, :, :, r, s].transpose(1, 2, 3, 0, 4)
    return dx.reshape(n, p.H + pad, p.W + pad, p.C)[:, *_inner(p)]


def grad_weight_nhwc(dy: Array, x: Array, p: ConvProblem) -> Array:
    dw: Array = np.matmul(_pixels_nhwc(dy, p).swapaxes(1, 2), _columns_nhwc(x, p))  # (G, K/G, L)
    return dw.reshape(p.K, p.R, p.S, -1).transpose(0, 3, 1, 2)


def _tap(p: ConvProblem, r: int, s: int) -> tuple[slice, slice]:
    """The cells of the padded input that tap (r, s) reads, one per output."""
    top, left = r * p.dilation, s * p.dilation
    return (
        slice(top, top + p.stride * (p.P - 1) + 1, p.stride),
        slice(left, left + p.stride * (p.Q - 1) + 1, p.stride),
    )


def _inner(p: ConvProblem) -> tuple[slice, slice]:
    """The padded input without its padding."""
    return slice(p.padding, p.padding + p.H), slice(p.padding, p.padding + p.W)


def max_pool(x: Array, p: PoolProblem, layout: str) -> tuple[Array, Array]:
    """(values, indices h W + w): a running maximum over the taps, in row order."""
    h_axis = 2 if layout == "NCHW" else 1
    pads = [(0, 0)] * 4
    pads[h_axis] = pads[h_axis + 1] = (p.padding, p.padding)
    padded = np.pad(x, pads, constant_values=-np.inf) if p.padding else x
    _, _, rows, columns = p.output_shape(x.shape[0])
    corner = np.add.outer(
        (np.arange(rows) * p.stride - p.padding) * p.W,
        np.arange(columns) * p.stride - p.padding,
    )
    corner = corner if layout == "NCHW" else corner[:, :, None]
    before = (slice(None),) * h_axis
    values: Array | None = None
    for r in range(p.kernel):
        for s in range(p.kernel):
            tap = padded[
                *before,
                slice(r, r + p.stride * (rows - 1) + 1, p.stride),
                slice(s, s + p.stride * (columns - 1) + 1, p.stride),
            ]
            if values is None:
                values, indices = tap.copy(), np.broadcast_to(corner, tap.shape).copy()
                continue
            larger = tap > values
            np.copyto(values, tap, where=larger)
            np.copyto(indices, corner + (r * p.W + s), where=larger)
    assert values is not None
    return values, indices


def max_pool_grad(
    dy: Array, indices: Array, shape: tuple[int, ...], p: PoolProblem, layout: str
) -> Array:
    """Scatter dy to its indices; plain assignment where windows cannot overlap."""
    n, c = shape[0], p.C
    images, channels = np.arange(n).reshape(n, 1, 1, 1), np.arange(c)
    if layout == "NCHW":
        flat = indices + (images * c + channels.reshape(1, c, 1, 1)) * (p.H * p.W)
    else:
        flat = (indices + images * (p.H * p.W)) * c + channels
    dx = np.zeros(shape, dy.dtype)
    if p.stride >= p.kernel:
        dx.reshape(-1)[flat.reshape(-1)] = dy.reshape(-1)
    else:
        np.add.at(dx.reshape(-1), flat.reshape(-1), dy.reshape(-1))
    return dx


_CONVS = (
    ConvProblem("1", "mnist", (), C=1, H=28, W=28, K=32, R=3, S=3),
    ConvProblem("2", "mnist", (), C=32, H=13, W=13, K=64, R=3, S=3),
    ConvProblem("3", "mnist", (), C=64, H=5, W=5, K=64, R=3, S=3),
)
_POOLS = tuple(PoolProblem(p.name, 0, p.K, p.P, p.Q, kernel=2, stride=2) for p in _CONVS[:2])


class Convnet:
    """The MNIST convnet: (convolution, ReLU, max-pool) twice, convolution, ReLU, two dense layers.

    Trained by RMSprop on softmax cross-entropy, in the dtype of its weights.
    """

    def __init__(self, layers: tuple[tuple[Array, Array], ...]) -> None:
        self._layers = [(w.copy(), b.copy()) for w, b in layers]
        self._squares = [(np.zeros_like(w), np.zeros_like(b)) for w, b in layers]

    def epoch(self, x: Array, labels: Array, batch: int) -> float:
        """Train on all samples once, in order; the mean loss."""
        firsts = range(0, len(x), batch)
        losses = (self._step(x[i : i + batch], labels[i : i + batch]) for i in firsts)
        return sum(losses) / len(firsts)

    def _step(self, x: Array, labels: Array) -> float:
        seen, pooled = [], []  # inputs of the layers, (maps, indices) before pooling
        for i, p in enumerate(_CONVS):
            seen.append(x)
            w, b = self._layers[i]
            x = np.maximum(forward_nchw(x, w, p) + b[:, None, None], 0)
            if i < len(_POOLS):
                y, (x, indices) = x, max_pool(x, _POOLS[i], "NCHW")
                pooled.append((y, indices))
        shape = x.shape
        flat = x.reshape(len(x), -1)
        (w4, b4), (w5, b5) = self._layers[3:]
        hidden = np.maximum(flat @ w4.T + b4, 0)
        loss, dlogits = _cross_entropy(hidden @ w5.T + b5, labels)

        dhidden = (dlogits @ w5) * (hidden > 0)
        gradients = [(dlogits.T @ hidden, dlogits.sum(0)), (dhidden.T @ flat, dhidden.sum(0))]
        dy = (dhidden @ w4).reshape(shape) * (x > 0)
        for i, p in reversed(list(enumerate(_CONVS))):
            if i < len(_POOLS):
                y, indices = pooled[i]
                dy = max_pool_grad(dy, indices, y.shape, _POOLS[i], "NCHW") * (y > 0)
            gradients.append((grad_weight_nchw(dy, seen[i], p), dy.sum((0, 2, 3))))
            if i > 0:
                dy = grad_input_nchw(dy, self._layers[i][0], p)
        self._update(gradients[::-1])
        return loss

    def _update(self, gradients: list[tuple[Array, Array]]) -> None:
        for layer, squares, gradient in zip(self._layers, self._squares, gradients, strict=True):
            for data, square, g in zip(layer, squares, gradient, strict=True):
                square *= DECAY
                square += (1 - DECAY) * g * g
                data -= RATE * g / (np.sqrt(square) + EPSILON)


def _cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """(mean loss, its gradient by the logits)"""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    softmax = np.exp(shifted)
    softmax /= softmax.sum(axis=1, keepdims=True)
    loss = -float(np.log(softmax[rows, labels]).mean())
    softmax[rows, labels] -= 1
    return loss, softmax / len(labels)
