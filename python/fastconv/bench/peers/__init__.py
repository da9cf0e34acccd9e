"""The libraries that are timed, one file each: ``<name>_peer.py`` with a class ``Runner``.

A further peer is one more such file. It needs NumPy and its own library only, and is imported in
its own process, after the thread variables are set.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..problems import Case, ConvProblem, DType, PoolProblem

Array = NDArray[Any]
Call = Callable[[], Any]


class Unsupported(Exception):
    """This peer cannot serve this case; the message says why, in one line."""


class ConvOperands(NamedTuple):
    """x (N, C, H, W), w (K, C/groups, R, S), dy (N, K, P, Q), C-contiguous."""

    x: Array
    w: Array
    dy: Array


class PoolOperands(NamedTuple):
    """x (N, C, H, W), dy (N, C, P, Q), C-contiguous."""

    x: Array
    dy: Array


class Runner(Protocol):
    """What a peer file provides.

    ``conv`` and ``max_pool`` bring the operands into the case's layout once and return the call
    to time, written as the library's users write it. ``to_numpy`` turns what that call returned
    into an NCHW array, or into (values, indices) for max-pool forward.
    """

    version: str
    details: dict[str, str]

    def __init__(self, threads: int, algorithm: str) -> None: ...

    def conv(self, case: Case, problem: ConvProblem, operands: ConvOperands) -> Call: ...

    def max_pool(self, case: Case, problem: PoolProblem, operands: PoolOperands) -> Call: ...

    def to_numpy(self, case: Case, result: Any) -> Any: ...


def names() -> tuple[str, ...]:
    """Every peer there is a file for, ours ("fastconv") among them."""
    files = Path(__file__).parent.glob("*_peer.py")
    return tuple(sorted(file.stem.removesuffix("_peer") for file in files))


def create(name: str, threads: int, algorithm: str) -> Runner:
    """Import the peer's library and set its thread count."""
    module = importlib.import_module(f".{name}_peer", __package__)
    runner: Runner = module.Runner(threads, algorithm)
    return runner


def conv_operands(case: Case, problem: ConvProblem) -> ConvOperands:
    """Normally distributed operands, the same in every worker and every run."""
    rng = np.random.default_rng(0)
    shapes = (
        problem.input_shape(case.batch),
        problem.weight_shape,
        problem.output_shape(case.batch),
    )
    return ConvOperands(*(_normal(rng, shape, case.dtype) for shape in shapes))


def pool_operands(case: Case, problem: PoolProblem) -> PoolOperands:
    """Normally distributed operands, the same in every worker and every run."""
    rng = np.random.default_rng(0)
    shapes = problem.input_shape(case.batch), problem.output_shape(case.batch)
    return PoolOperands(*(_normal(rng, shape, case.dtype) for shape in shapes))


def to_layout(case: Case, array: Array) -> Array:
    """An NCHW activation as a contiguous array of the case's layout."""
    if case.layout == "NHWC":
        array = array.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array)


def to_nchw(case: Case, result: Any) -> Any:
    """The view of a NumPy result with its axes in NCHW order; filter gradients are so already."""
    if case.layout == "NCHW" or case.pass_ == "weight":
        return result
    if isinstance(result, tuple):
        return tuple(to_nchw(case, part) for part in result)
    return result.transpose(0, 3, 1, 2)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> Array:
    if dtype == "float32":
        return rng.standard_normal(shape, dtype=np.float32)
    return rng.standard_normal(shape)
