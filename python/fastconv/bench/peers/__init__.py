"""The libraries that are timed, one file each: ``<name>_peer.py`` with a class ``Runner``.

Ours and NumPy's are here, those of other libraries in the folder benchmarks/peers of the source. A
further peer is one more such file. It needs NumPy and its own library only, and is imported in its
own process, after the thread variables are set.
"""

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..problems import Case, ConvProblem, DType, GemmProblem, PoolProblem, TrainProblem

Array = NDArray[Any]
Call = Callable[[], Any]

# Modules of this package are found in benchmarks/peers, too, where this is a clone of the source or
# is run from one.
_SOURCE = Path("benchmarks", "peers")
_CLONES = *Path(__file__).parents[4:5], Path()
__path__ += [str((root / _SOURCE).absolute()) for root in _CLONES if (root / _SOURCE).is_dir()]


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


class GemmOperands(NamedTuple):
    """a (M, K), b (K, N), C-contiguous."""

    a: Array
    b: Array


class TrainOperands(NamedTuple):
    """Samples for all steps, and the network to start from.

    x (steps N, 1, 28, 28), labels (steps N,) int64; three convolutions' and two dense layers'
    weights, (K, C, 3, 3) and (out, in), each with its bias.
    """

    x: Array
    labels: NDArray[np.int64]
    layers: tuple[tuple[Array, Array], ...]


Operands = ConvOperands | PoolOperands | GemmOperands | TrainOperands

#: RMSprop of the training step: learning rate, decay of the squared gradients, epsilon.
RATE, DECAY, EPSILON = 1e-3, 0.9, 1e-8


class Runner(Protocol):
    """What a peer file provides, with methods for the kinds of case that it serves.

        conv(case, problem: ConvProblem, operands: ConvOperands) -> Call
        max_pool(case, problem: PoolProblem, operands: PoolOperands) -> Call
        matmul(case, problem: GemmProblem, operands: GemmOperands) -> Call
        train(case, problem: TrainProblem, operands: TrainOperands) -> Call

    Each brings the operands into the case's layout once and returns the call to time, written as
    the library's users write it; ``train``'s goes once over all samples, ``case.batch`` at a time,
    and returns the mean loss. ``to_numpy`` turns what a call returned into a NumPy array (NCHW),
    or into (values, indices) for max-pool forward.
    """

    version: str
    details: dict[str, str]

    def __init__(self, threads: int, algorithm: str) -> None: ...

    def to_numpy(self, case: Case, result: Any) -> Any: ...


def names() -> tuple[str, ...]:
    """Every peer there is a file for, ours ("fastconv") among them."""
    files = (file for folder in __path__ for file in Path(folder).glob("*_peer.py"))
    return tuple(sorted({file.stem.removesuffix("_peer") for file in files}))


def elsewhere() -> str:
    """Where the other libraries' runners are, in a line; empty where they have been found."""
    if len(__path__) > 1:
        return ""
    return f"runners of other libraries are in {_SOURCE} of the source: run this in a clone of it"


def create(name: str, threads: int, algorithm: str) -> Runner:
    """Import the peer's library and set its thread count."""
    module = importlib.import_module(f".{name}_peer", __package__)
    runner: Runner = module.Runner(threads, algorithm)
    return runner


def bind(runner: Runner, case: Case, operands: Operands) -> Call:
    """The call to time; Unsupported where the peer does not serve this kind of case."""
    method = getattr(runner, case.kind, None)
    if method is None:
        raise Unsupported(f"this peer has no {case.kind}")
    call: Call = method(case, case.problem, operands)
    return call


def make_operands(case: Case) -> Operands:
    """Normally distributed operands, the same in every worker and every run."""
    problem = case.problem
    if isinstance(problem, ConvProblem):
        return conv_operands(case, problem)
    if isinstance(problem, PoolProblem):
        return pool_operands(case, problem)
    if isinstance(problem, GemmProblem):
        return gemm_operands(case, problem)
    assert isinstance(problem, TrainProblem)
    return train_operands(case, problem)


def conv_operands(case: Case, problem: ConvProblem) -> ConvOperands:
    rng = np.random.default_rng(0)
    shapes = (
        problem.input_shape(case.batch),
        problem.weight_shape,
        problem.output_shape(case.batch),
    )
    return ConvOperands(*(_normal(rng, shape, case.dtype) for shape in shapes))


def pool_operands(case: Case, problem: PoolProblem) -> PoolOperands:
    rng = np.random.default_rng(0)
    shapes = problem.input_shape(case.batch), problem.output_shape(case.batch)
    return PoolOperands(*(_normal(rng, shape, case.dtype) for shape in shapes))


def gemm_operands(case: Case, problem: GemmProblem) -> GemmOperands:
    rng = np.random.default_rng(0)
    shapes = (problem.M, problem.K), (problem.K, problem.N)
    return GemmOperands(*(_normal(rng, shape, case.dtype) for shape in shapes))


def train_operands(case: Case, problem: TrainProblem) -> TrainOperands:
    """Noise with random labels, and weights of He's variance 2 / fan-in (arXiv 1502.01852)."""
    rng = np.random.default_rng(0)
    samples = problem.steps * case.batch
    x = _normal(rng, (samples, 1, 28, 28), case.dtype)
    labels = rng.integers(0, 10, samples)
    shapes = (32, 1, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (64, 64 * 3 * 3), (10, 64)
    layers = []
    for shape in shapes:
        w = _normal(rng, shape, case.dtype)
        w *= (2 / (w.size // w.shape[0])) ** 0.5
        layers.append((w, np.zeros(shape[0], w.dtype)))
    return TrainOperands(x, labels, tuple(layers))


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
    """Large arrays repeat a million numbers: drawing all would take longer than the timing."""
    drawn = min(math.prod(shape), 1_000_003)
    numbers = rng.standard_normal(drawn, np.float32 if dtype == "float32" else np.float64)
    return np.resize(numbers, shape)
