"""Which cases are timed: layers of known networks and what they are made of, as data.

The tests use the same list of layers.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

from .problems import Case, ConvProblem, DType, GemmProblem, Layout, Pass, PoolProblem, TrainProblem

PASSES: tuple[Pass, ...] = ("forward", "input", "weight")
SUITES = {
    "conv": "convolution layers of known networks",
    "pool": "their max-pool layers, forward with indices and backward",
    "gemm": "matrix products: large squares, and those that convolutions are made of",
    "train": "a step of training the MNIST convnet",
    "start": "import, first call and further calls of a very small convolution",
}

#: A few layers that between them need every kind of kernel: few channels, wide 3x3, late 3x3,
#: large filter, pointwise, strided, depthwise; each with its batch size.
QUICK = {
    "mnist.conv2": 64,
    "alexnet.conv1": 1,
    "vgg16.conv3_2": 1,
    "resnet50.conv2_1c": 8,
    "resnet50.conv4_1b": 8,
    "resnet50.conv5_2b": 8,
    "mobilenetv2.b3_2_dw": 8,
    "mnist.pool1": 64,
    "gemm.1024": 1,
    "mnist.step": 64,
}

#: Its arithmetic takes a microsecond: what is timed is the way there.
SMALLEST = ConvProblem("smallest.conv", "smallest", (1,), C=8, H=16, W=16, K=8, R=3, S=3, padding=1)


def load() -> tuple[tuple[ConvProblem, ...], tuple[PoolProblem, ...]]:
    """The package's list: (convolution layers, max-pool layers)."""
    lists = json.loads(Path(__file__).with_name("problems.json").read_text(encoding="utf-8"))
    convs = (ConvProblem(**entry | {"batches": tuple(entry["batches"])}) for entry in lists["conv"])
    return tuple(convs), tuple(PoolProblem(**entry) for entry in lists["max_pool"])


def select(
    suites: Iterable[str] = ("conv",),
    *,
    nets: Iterable[str] = (),
    names: Iterable[str] = (),
    batches: Sequence[int] = (),
    passes: Sequence[Pass] = ("forward",),
    layout: Layout = "NCHW",
    dtype: DType = "float32",
    quick: bool = False,
) -> list[Case]:
    """Cases of the suites whose network and name match a glob pattern (no patterns match all).

    ``passes`` are those of layers. ``batches`` replaces the batch sizes of the list. ``quick``
    keeps what is named in QUICK. The suite "start" has no cases: it is one measurement.
    """
    nets, names = tuple(nets), tuple(names)
    found: list[Case] = []
    for suite in suites:
        for case in _CASES[suite](tuple(passes), layout, dtype):
            problem = case.problem
            if _matches(problem.net, nets) and _matches(problem.name, names):
                found += _with_batches(case, batches, quick)
    return list(dict.fromkeys(found))


def _with_batches(case: Case, batches: Sequence[int], quick: bool) -> Iterator[Case]:
    if quick and case.problem.name not in QUICK:
        return
    if quick and not batches:
        batches = (QUICK[case.problem.name],)
    if isinstance(case.problem, GemmProblem):
        batches = ()
    for batch in batches or (case.batch,):
        yield Case(case.problem, batch, case.pass_, case.layout, case.dtype)


def _conv(passes: Sequence[Pass], layout: Layout, dtype: DType) -> Iterator[Case]:
    for layer in load()[0]:
        for batch, pass_ in product(layer.batches, passes):
            yield Case(layer, batch, pass_, layout, dtype)


def _pool(passes: Sequence[Pass], layout: Layout, dtype: DType) -> Iterator[Case]:
    for layer in load()[1]:
        for pass_ in passes:
            if pass_ != "weight":
                yield Case(layer, layer.N, pass_, layout, dtype)


def _gemm(passes: Sequence[Pass], layout: Layout, dtype: DType) -> Iterator[Case]:
    """1024 and 2048 cubed, and the products y[K, pixels] = w[K, taps] patches[taps, pixels]."""
    for extent in (1024, 2048):
        problem = GemmProblem(f"gemm.{extent}", extent, extent, extent)
        yield Case(problem, 1, "product", "NCHW", dtype)
    for layer in load()[0]:
        if layer.name in QUICK and layer.groups == 1:
            batch = QUICK[layer.name]
            pixels, taps = batch * layer.P * layer.Q, layer.C * layer.R * layer.S
            problem = GemmProblem(f"gemm.{layer.name}", layer.K, pixels, taps)
            yield Case(problem, 1, "product", "NCHW", dtype)


def _train(passes: Sequence[Pass], layout: Layout, dtype: DType) -> Iterator[Case]:
    yield Case(TrainProblem(), 64, "step", "NCHW", dtype)


def _start(passes: Sequence[Pass], layout: Layout, dtype: DType) -> Iterator[Case]:
    return iter(())


_CASES = {"conv": _conv, "pool": _pool, "gemm": _gemm, "train": _train, "start": _start}


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)
