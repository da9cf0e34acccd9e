"""PyTorch, eager: functional.conv2d and the operators its autograd calls for the gradients.

NHWC is its channels_last memory format, for activations and filters, as a converted model has it.
"""

# mypy: disable-error-code="import-not-found"

from typing import Any

import torch
from torch.nn import functional

from ..problems import Case, ConvProblem, PoolProblem
from . import Array, Call, ConvOperands, PoolOperands


class Runner:
    def __init__(self, threads: int, algorithm: str) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.version = torch.__version__
        self.details = {"cpu capability": torch.backends.cpu.get_cpu_capability()}

    def conv(self, case: Case, problem: ConvProblem, operands: ConvOperands) -> Call:
        p = problem
        x, w, dy = (_tensor(case, operand) for operand in operands)
        stride, padding, dilation = ((n, n) for n in (p.stride, p.padding, p.dilation))
        if case.pass_ == "forward":
            return lambda: functional.conv2d(x, w, None, stride, padding, dilation, p.groups)
        mask = [case.pass_ == "input", case.pass_ == "weight", False]
        index = mask.index(True)
        return lambda: torch.ops.aten.convolution_backward(
            dy, x, w, None, stride, padding, dilation, False, (0, 0), p.groups, mask
        )[index]

    def max_pool(self, case: Case, problem: PoolProblem, operands: PoolOperands) -> Call:
        x, dy = (_tensor(case, operand) for operand in operands)
        window = (problem.kernel, problem.stride, problem.padding)
        if case.pass_ == "forward":
            return lambda: functional.max_pool2d(x, *window, return_indices=True)
        kernel, stride, padding = ((n, n) for n in window)
        _, indices = functional.max_pool2d(x, *window, return_indices=True)
        return lambda: torch.ops.aten.max_pool2d_with_indices_backward(
            dy, x, kernel, stride, padding, (1, 1), False, indices
        )

    def to_numpy(self, case: Case, result: Any) -> Any:
        if isinstance(result, tuple):
            return tuple(part.numpy() for part in result)
        return result.numpy()


def _tensor(case: Case, array: Array) -> Any:
    tensor = torch.from_numpy(array)
    if case.layout == "NCHW":
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)
