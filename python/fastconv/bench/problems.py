"""What is measured: a layer, a matrix product, a training step; and one measurement of it.

Letters: activations x[N, C, H, W], filters w[K, C/groups, R, S], outputs y[N, K, P, Q]; matrices
c[M, N] = a[M, K] b[K, N].
"""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal

Pass = Literal["forward", "input", "weight", "product", "step", "start"]
Layout = Literal["NCHW", "NHWC"]
DType = Literal["float32", "float64"]


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

    def bytes(self, batch: int, itemsize: int) -> int:
        """Of x, w and y together: what any pass moves at least."""
        shapes = self.input_shape(batch), self.weight_shape, self.output_shape(batch)
        return sum(map(prod, shapes)) * itemsize


class _Uncounted:
    """What a problem is that belongs to no network's total; its net is the name up to the dot."""

    name: str
    count = 1

    @property
    def net(self) -> str:
        return self.name.partition(".")[0]

    def flops(self, batch: int) -> int:
        """None worth counting."""
        return 0

    def bytes(self, batch: int, itemsize: int) -> int:
        """None worth counting."""
        return 0


@dataclass(frozen=True)
class PoolProblem(_Uncounted):
    """One max-pool layer with a square window; bound by memory, so its FLOPs are not counted."""

    name: str
    N: int
    C: int
    H: int
    W: int
    kernel: int
    stride: int
    padding: int = 0

    def input_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, C, H, W)"""
        return batch, self.C, self.H, self.W

    def output_shape(self, batch: int) -> tuple[int, int, int, int]:
        """(N, C, P, Q)"""
        p, q = (_extent(n, self.kernel, self.stride, self.padding, 1) for n in (self.H, self.W))
        return batch, self.C, p, q

    def bytes(self, batch: int, itemsize: int) -> int:
        """Of x or dx, y or dy, and int64 indices."""
        return prod(self.input_shape(batch)) * itemsize + prod(self.output_shape(batch)) * (
            itemsize + 8
        )


@dataclass(frozen=True)
class GemmProblem(_Uncounted):
    """One matrix product."""

    name: str
    M: int
    N: int
    K: int

    def flops(self, batch: int) -> int:
        """A multiply and an add for each term."""
        return 2 * self.M * self.N * self.K

    def bytes(self, batch: int, itemsize: int) -> int:
        """Of a, b and c."""
        return (self.M * self.K + self.K * self.N + self.M * self.N) * itemsize


@dataclass(frozen=True)
class TrainProblem(_Uncounted):
    """Steps of training the MNIST convnet. A call makes all of them; the time told is of one."""

    name: str = "mnist.step"
    steps: int = 200


@dataclass(frozen=True)
class StartProblem(_Uncounted):
    """What a fresh process spends before its first result."""

    name: str


Problem = ConvProblem | PoolProblem | GemmProblem | TrainProblem | StartProblem

_KINDS: dict[str, type[Problem]] = {
    "conv": ConvProblem,
    "max_pool": PoolProblem,
    "matmul": GemmProblem,
    "train": TrainProblem,
    "start": StartProblem,
}


@dataclass(frozen=True)
class Case:
    """One measurement: a problem at one batch size, pass, layout and data type."""

    problem: Problem
    batch: int
    pass_: Pass
    layout: Layout = "NCHW"
    dtype: DType = "float32"

    @property
    def kind(self) -> str:
        """What the problem is, by the name of the peers' method that serves it."""
        return next(name for name, kind in _KINDS.items() if type(self.problem) is kind)

    @property
    def flops(self) -> int:
        return self.problem.flops(self.batch)

    @property
    def bytes(self) -> int:
        """Of all operands, each once: what the pass must move at least."""
        return self.problem.bytes(self.batch, 4 if self.dtype == "float32" else 8)

    @property
    def steps(self) -> int:
        """How many of the units that a time is quoted for one call makes."""
        return self.problem.steps if isinstance(self.problem, TrainProblem) else 1

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values, for the pipe to a worker."""
        return asdict(self) | {"kind": self.kind}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Case":
        fields = dict(fields)
        kind = _KINDS[fields.pop("kind")]
        problem = dict(fields.pop("problem"))
        if "batches" in problem:
            problem["batches"] = tuple(problem["batches"])
        return cls(kind(**problem), **fields)
