"""PyTorch, eager: functional.conv2d and the operators its autograd calls for the gradients.

NHWC is its channels_last memory format, for activations and filters, as a converted model has it.
The algorithm "channels_last" keeps that format whatever layout the case asks for.
"""

# mypy: disable-error-code="import-not-found"

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fastconv.bench.peers import (
    DECAY,
    EPSILON,
    RATE,
    Array,
    Call,
    ConvOperands,
    GemmOperands,
    PoolOperands,
    TrainOperands,
)
from fastconv.bench.problems import Case, ConvProblem, GemmProblem, PoolProblem, TrainProblem


class Runner:
    def __init__(self, threads: int, algorithm: str) -> None:
        if algorithm not in ("auto", "channels_last"):
            raise ValueError(f"torch:{algorithm} is not known, only torch:channels_last")
        torch.set_num_threads(threads)
        self.version = torch.__version__
        self.details = {"cpu capability": torch.backends.cpu.get_cpu_capability()}
        self._always_last = algorithm == "channels_last"

    def conv(self, case: Case, problem: ConvProblem, operands: ConvOperands) -> Call:
        torch.set_grad_enabled(False)
        p = problem
        x, w, dy = (self._tensor(case, operand) for operand in operands)
        stride, padding, dilation = ((n, n) for n in (p.stride, p.padding, p.dilation))
        if case.pass_ == "forward":
            return lambda: functional.conv2d(x, w, None, stride, padding, dilation, p.groups)
        mask = [case.pass_ == "input", case.pass_ == "weight", False]
        index = mask.index(True)
        return lambda: torch.ops.aten.convolution_backward(
            dy, x, w, None, stride, padding, dilation, False, (0, 0), p.groups, mask
        )[index]

    def max_pool(self, case: Case, problem: PoolProblem, operands: PoolOperands) -> Call:
        torch.set_grad_enabled(False)
        x, dy = (self._tensor(case, operand) for operand in operands)
        window = (problem.kernel, problem.stride, problem.padding)
        if case.pass_ == "forward":
            return lambda: functional.max_pool2d(x, *window, return_indices=True)
        kernel, stride, padding = ((n, n) for n in window)
        _, indices = functional.max_pool2d(x, *window, return_indices=True)
        return lambda: torch.ops.aten.max_pool2d_with_indices_backward(
            dy, x, kernel, stride, padding, (1, 1), False, indices
        )

    def matmul(self, case: Case, problem: GemmProblem, operands: GemmOperands) -> Call:
        a, b = map(torch.from_numpy, operands)
        return lambda: torch.mm(a, b)

    def train(self, case: Case, problem: TrainProblem, operands: TrainOperands) -> Call:
        torch.set_grad_enabled(True)
        model = nn.Sequential(
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(64 * 3 * 3, 64), nn.ReLU(), nn.Linear(64, 10)),
        )
        arrays = [array for layer in operands.layers for array in layer]
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            parameter.data = torch.from_numpy(array.copy())
        if self._always_last:
            model = model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.RMSprop(model.parameters(), RATE, alpha=DECAY, eps=EPSILON)
        x, labels = self._tensor(case, operands.x), torch.from_numpy(operands.labels)

        def epoch() -> float:
            total = 0.0
            for first in range(0, len(x), case.batch):
                batch = slice(first, first + case.batch)
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x[batch]), labels[batch])
                loss.backward()
                optimizer.step()
                total += loss.item()
            return total / problem.steps

        return epoch

    def to_numpy(self, case: Case, result: Any) -> Any:
        if isinstance(result, tuple):
            return tuple(part.numpy() for part in result)
        return result.numpy() if isinstance(result, torch.Tensor) else result

    def _tensor(self, case: Case, array: Array) -> Any:
        tensor = torch.from_numpy(array)
        if case.layout == "NCHW" and not self._always_last:
            return tensor
        return tensor.contiguous(memory_format=torch.channels_last)
