"""SciPy: convolution by the FFT, one product per frequency over channels.

SciPy has no batched convolution over channels: scipy.signal.correlate takes one image and one
filter at a time and knows no stride. What serves all three passes is the convolution theorem with
scipy.fft, in the manner of Mathieu, Henaff and LeCun (arXiv 1312.5851): real 2-D transforms of
all images and filters, a complex matmul per frequency, and one inverse transform.
F counts frequencies; a stride is undone by zeros between the cells of dy.
"""

# mypy: disable-error-code="import-untyped,import-not-found"

from typing import Any

import numpy as np
import scipy
import scipy.fft

from fastconv.bench.peers import Array, Call, ConvOperands, Unsupported, to_layout, to_nchw
from fastconv.bench.problems import Case, ConvProblem

#: Cases whose spectra are larger than this are left out.
MEMORY_LIMIT = 2 * 2**30


class Runner:
    def __init__(self, threads: int, algorithm: str) -> None:
        self.version = scipy.__version__
        self.details: dict[str, str] = {}
        self._threads = threads

    def conv(self, case: Case, problem: ConvProblem, operands: ConvOperands) -> Call:
        layer = SpectralConv(problem, self._threads)
        size = layer.spectra_bytes(case)
        if size > MEMORY_LIMIT:
            raise Unsupported(f"the spectra take {size / 2**30:.1f} GiB, more than 2")
        x, dy = to_layout(case, operands.x), to_layout(case, operands.dy)
        if case.layout == "NHWC":
            x, dy = x.transpose(0, 3, 1, 2), dy.transpose(0, 3, 1, 2)
        calls: dict[str, Call] = {
            "forward": lambda: to_layout(case, layer.forward(x, operands.w)),
            "input": lambda: to_layout(case, layer.grad_input(dy, operands.w)),
            "weight": lambda: layer.grad_weight(dy, x),
        }
        return calls[case.pass_]

    def to_numpy(self, case: Case, result: Any) -> Any:
        return to_nchw(case, result)


class SpectralConv:
    """One layer; arrays are (N, C, H, W), in any memory order."""

    def __init__(self, problem: ConvProblem, threads: int) -> None:
        self._p = p = problem
        self._threads = threads
        # As long as the padded input, so that no cell a pass keeps has wrapped around.
        self._shape = tuple(
            scipy.fft.next_fast_len(extent + 2 * p.padding, real=True) for extent in (p.H, p.W)
        )

    def spectra_bytes(self, case: Case) -> int:
        p, n = self._p, case.batch
        frequencies = self._shape[0] * (self._shape[1] // 2 + 1)
        spectra = n * p.C + n * p.K + p.K * p.C // p.groups
        return int(spectra * frequencies * 2 * np.dtype(case.dtype).itemsize)

    def forward(self, x: Array, w: Array) -> Array:
        y = self._inverse(_product(self._input(x), self._filters(w).conj().swapaxes(3, 4)))
        cells = slice(None, None, self._p.stride)
        return _merge_groups(y[..., cells, cells][..., : self._p.P, : self._p.Q])

    def grad_input(self, dy: Array, w: Array) -> Array:
        p = self._p
        dx = self._inverse(_product(self._output(dy), self._filters(w)))
        return _merge_groups(dx[..., p.padding : p.padding + p.H, p.padding : p.padding + p.W])

    def grad_weight(self, dy: Array, x: Array) -> Array:
        p = self._p
        dw = self._inverse(_product(self._output(dy).conj().swapaxes(3, 4), self._input(x)))
        taps = slice(None, None, p.dilation)
        return dw[..., taps, taps][..., : p.R, : p.S].reshape(p.weight_shape)

    def _input(self, x: Array) -> Array:
        pad = (self._p.padding, self._p.padding)
        return self._spectrum(np.pad(x, ((0, 0), (0, 0), pad, pad)))

    def _output(self, dy: Array) -> Array:
        return self._spectrum(_spread(dy, self._p.stride))

    def _filters(self, w: Array) -> Array:
        """(F1, F2, G, K/G, C/G)"""
        p = self._p
        spectrum = self._transform(_spread(w, p.dilation))
        spectrum = spectrum.reshape(p.groups, p.K // p.groups, -1, *spectrum.shape[2:])
        return np.ascontiguousarray(spectrum.transpose(3, 4, 0, 1, 2))

    def _spectrum(self, a: Array) -> Array:
        """(F1, F2, G, N, channels/G)"""
        spectrum = self._transform(a)
        spectrum = spectrum.reshape(a.shape[0], self._p.groups, -1, *spectrum.shape[2:])
        return np.ascontiguousarray(spectrum.transpose(3, 4, 1, 0, 2))

    def _transform(self, a: Array) -> Array:
        return np.asarray(scipy.fft.rfft2(a, self._shape, workers=self._threads))

    def _inverse(self, spectrum: Array) -> Array:
        """(G, rows, columns, H, W) of the products (F1, F2, G, rows, columns)."""
        spectrum = np.ascontiguousarray(spectrum.transpose(2, 3, 4, 0, 1))
        return np.asarray(scipy.fft.irfft2(spectrum, self._shape, workers=self._threads))


def _merge_groups(a: Array) -> Array:
    """(G, N, channels/G, H, W) -> (N, channels, H, W)"""
    g, n, channels, h, w = a.shape
    return a.swapaxes(0, 1).reshape(n, g * channels, h, w)


def _product(a: Array, b: Array) -> Array:
    """a @ b; element by element where nothing is summed, as in a depthwise layer."""
    return a * b if a.shape[-1] == 1 else np.matmul(a, b)


def _spread(a: Array, step: int) -> Array:
    """The last two axes with step - 1 zeros between their cells."""
    if step == 1:
        return a
    h, w = a.shape[2:]
    spread = np.zeros((*a.shape[:2], (h - 1) * step + 1, (w - 1) * step + 1), a.dtype)
    spread[..., ::step, ::step] = a
    return spread
