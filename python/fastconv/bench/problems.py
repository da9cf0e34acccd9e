"""The layers that speed is judged on, as data, shared by the benchmark and the tests.

Letters: activations x[N, C, H, W], filters w[K, C/groups, R, S], outputs y[N, K, P, Q].
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

Pass = Literal["forward", "input", "weight"]
Layout = Literal["NCHW", "NHWC"]
DType = Literal["float32", "float64"]
PASSES: tuple[Pass, ...] = ("forward", "input", "weight")

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
}


def _extent(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Output cells along one axis."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@dataclass(frozen=True)
class ConvProblem:
    """One convolution layer; ``count`` is how often its network holds it."""

    name: str
    net: str
    batches: tuple[int, ...]
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    count: int = 1

    @property
    def P(self) -> int:
        return _extent(self.H, self.R, self.stride, self.padding, self.dilation)

    @property
    def Q(self) -> int:
        return _extent(self.W, self.S, self.stride, self.padding, self.dilation)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(K, C/groups, R, S)"""
        return self.K, self.C // self.groups, self.R, self.S

    def input_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, C, H, W)"""
        return batch, self.C, self.H, self.W

    def output_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, K, P, Q)"""
        return batch, self.K, self.P, self.Q

    def flops(self, batch: int) -> int:
        """Direct-convolution FLOPs of any pass: a multiply and an add for each tap."""
        taps = self.C // self.groups * self.R * self.S
        return 2 * batch * self.K * self.P * self.Q * taps


@dataclass(frozen=True)
class PoolProblem:
    """One max-pool layer with a square window."""

    name: str
    N: int
    C: int
    H: int
    W: int
    kernel: int
    stride: int
    padding: int = 0

    @property
    def net(self) -> str:
        return self.name.partition(".")[0]

    @property
    def batches(self) -> tuple[int, ...]:
        return (self.N,)

    @property
    def count(self) -> int:
        return 1

    def input_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, C, H, W)"""
        return batch, self.C, self.H, self.W

    def output_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, C, P, Q)"""
        p, q = (_extent(n, self.kernel, self.stride, self.padding, 1) for n in (self.H, self.W))
        return batch, self.C, p, q

    def flops(self, batch: int) -> int:
        """None worth counting: pooling is bound by memory."""
        return 0


Problem = ConvProblem | PoolProblem


@dataclass(frozen=True)
class Case:
    """One measurement: a problem at one batch size, pass, layout and data type."""

    problem: Problem
    batch: int
    pass_: Pass
    layout: Layout = "NCHW"
    dtype: DType = "float32"

    @property
    def flops(self) -> int:
        return self.problem.flops(self.batch)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, for the pipe to a worker."""
        return asdict(self) | {"kind": "conv" if isinstance(self.problem, ConvProblem) else "pool"}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Case":
        fields = dict(fields)
        kind = ConvProblem if fields.pop("kind") == "conv" else PoolProblem
        problem = dict(fields.pop("problem"))
        if "batches" in problem:
            problem["batches"] = tuple(problem["batches"])
        return cls(kind(**problem), **fields)


def load() -> tuple[tuple[ConvProblem, ...], tuple[PoolProblem, ...]]:
    """The package's list: (convolution layers, max-pool layers)."""
    lists = json.loads(Path(__file__).with_name("problems.json").read_text(encoding="utf-8"))
    convs = (ConvProblem(**entry | {"batches": tuple(entry["batches"])}) for entry in lists["conv"])
    return tuple(convs), tuple(PoolProblem(**entry) for entry in lists["max_pool"])


def select(
    *,
    nets: Iterable[str] = (),
    names: Iterable[str] = (),
    batches: Sequence[int] = (),
    passes: Sequence[Pass] = ("forward",),
    layout: Layout = "NCHW",
    dtype: DType = "float32",
    max_pool: bool = False,
    quick: bool = False,
) -> list[Case]:
    """Cases of the list whose network and name match a glob pattern (an empty list matches all).

    ``batches`` replaces the batch sizes of the list. ``quick`` keeps the layers named in QUICK.
    """
    convs, pools = load()
    nets, names = tuple(nets), tuple(names)

    def wanted(problem: Problem) -> bool:
        listed = not quick or problem.name in QUICK
        return listed and _matches(problem.net, nets) and _matches(problem.name, names)

    def cases(problem: Problem) -> Iterator[Case]:
        for batch in batches or ((QUICK[problem.name],) if quick else problem.batches):
            for pass_ in passes:
                if pass_ != "weight" or isinstance(problem, ConvProblem):
                    yield Case(problem, batch, pass_, layout, dtype)

    chosen: tuple[Problem, ...] = (*convs, *pools) if max_pool else convs
    return [case for problem in chosen if wanted(problem) for case in cases(problem)]


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns)
