"""fastconv, called as its users call it: a fresh output from every call."""

from typing import Any

import fastconv
import fastconv._core as _core
from fastconv import models, nn, ops, optim

from ..problems import Case, ConvProblem, DType, GemmProblem, PoolProblem, TrainProblem
from . import (
    DECAY,
    EPSILON,
    RATE,
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
        fastconv.set_num_threads(threads)
        self.version = fastconv.__version__
        self.details = {
            "isa": _core.isa(),
            "blas": _core.blas_version(),
            "compiler": _core.COMPILER,
        }
        self._threads = threads
        self._algorithm = algorithm

    def conv(self, case: Case, problem: ConvProblem, operands: ConvOperands) -> Call:
        p, w = problem, operands.w
        x, dy = to_layout(case, operands.x), to_layout(case, operands.dy)
        keywords: dict[str, Any] = {
            "stride": p.stride,
            "padding": p.padding,
            "dilation": p.dilation,
            "groups": p.groups,
            "layout": case.layout,
            "algorithm": self._algorithm,
        }
        calls: dict[str, Call] = {
            "forward": lambda: fastconv.conv2d(x, w, **keywords),
            "input": lambda: fastconv.conv2d_grad_input(dy, w, x.shape, **keywords),
            "weight": lambda: fastconv.conv2d_grad_weight(dy, x, w.shape, **keywords),
        }
        return calls[case.pass_]

    def max_pool(self, case: Case, problem: PoolProblem, operands: PoolOperands) -> Call:
        layout = case.layout
        x, dy = to_layout(case, operands.x), to_layout(case, operands.dy)

        def forward() -> Any:
            return fastconv.max_pool2d(
                x,
                problem.kernel,
                stride=problem.stride,
                padding=problem.padding,
                layout=layout,
                return_indices=True,
            )

        if case.pass_ == "forward":
            return forward
        _, indices = forward()
        return lambda: fastconv.max_pool2d_grad(dy, indices, x.shape, layout=layout)

    def matmul(self, case: Case, problem: GemmProblem, operands: GemmOperands) -> Call:
        return lambda: ops.matmul(*operands)

    def train(self, case: Case, problem: TrainProblem, operands: TrainOperands) -> Call:
        model = models.mnist_convnet()
        arrays = [array for layer in operands.layers for array in layer]
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            parameter.data[...] = array
        optimizer = optim.RMSprop(RATE, alpha=DECAY, eps=EPSILON)
        loss = nn.SoftmaxCrossEntropy()

        def epoch() -> float:
            history = model.fit(
                operands.x,
                operands.labels,
                epochs=1,
                batch_size=case.batch,
                optimizer=optimizer,
                loss=loss,
                shuffle=False,
            )
            return history["loss"][-1]

        return epoch

    def to_numpy(self, case: Case, result: Any) -> Any:
        return to_nchw(case, result)

    def peak(self, dtype: DType) -> float:
        """GFLOP/s of multiply-adds in registers, on this thread count and the widest SIMD."""
        return _core.measure_peak(dtype, self._threads)
