"""ONNX Runtime: one session for a model of one node. It computes no gradients and knows NCHW alone.

Filters are constants of the model, as in an exported network, so that it may rearrange them
beforehand.
"""

# mypy: disable-error-code="import-untyped,import-not-found"

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from fastconv.bench.peers import Array, Call, ConvOperands, GemmOperands, PoolOperands, Unsupported
from fastconv.bench.problems import Case, ConvProblem, GemmProblem, PoolProblem

#: Of the standard's operators; old enough for every ONNX Runtime of the last years.
OPSET = 17


class Runner:
    def __init__(self, threads: int, algorithm: str) -> None:
        self.version = onnxruntime.__version__
        self.details = {"onnx": onnx.__version__}
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1

    def conv(self, case: Case, problem: ConvProblem, operands: ConvOperands) -> Call:
        _check_served(case)
        p = problem
        node = helper.make_node(
            "Conv",
            ["x", "w"],
            ["y"],
            strides=[p.stride] * 2,
            pads=[p.padding] * 4,
            dilations=[p.dilation] * 2,
            group=p.groups,
        )
        return self._call(node, {"x": operands.x}, {"w": operands.w})

    def max_pool(self, case: Case, problem: PoolProblem, operands: PoolOperands) -> Call:
        _check_served(case)
        p = problem
        node = helper.make_node(
            "MaxPool",
            ["x"],
            ["y", "indices"],
            kernel_shape=[p.kernel] * 2,
            strides=[p.stride] * 2,
            pads=[p.padding] * 4,
        )
        return self._call(node, {"x": operands.x}, {})

    def matmul(self, case: Case, problem: GemmProblem, operands: GemmOperands) -> Call:
        a, b = operands
        return self._call(helper.make_node("MatMul", ["a", "b"], ["c"]), {"a": a, "b": b}, {})

    def to_numpy(self, case: Case, result: Any) -> Any:
        if len(result) == 1:
            return result[0]
        values, indices = result
        assert isinstance(case.problem, PoolProblem)
        return values, indices % (case.problem.H * case.problem.W)  # it counts through the batch

    def _call(self, node: Any, inputs: dict[str, Array], constants: dict[str, Array]) -> Call:
        """A call that feeds the inputs to a model of this node and returns its outputs."""
        graph = helper.make_graph(
            [node],
            "case",
            [_info(name, array.dtype, array.shape) for name, array in inputs.items()],
            [
                _info(name, np.int64 if name == "indices" else next(iter(inputs.values())).dtype)
                for name in node.output
            ],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), self._options, providers=["CPUExecutionProvider"]
        )
        return lambda: session.run(None, inputs)


def _check_served(case: Case) -> None:
    if case.layout != "NCHW":
        raise Unsupported("ONNX Runtime knows NCHW alone")
    if case.pass_ != "forward":
        raise Unsupported("ONNX Runtime computes no gradients")
    if case.dtype != "float32":
        raise Unsupported("ONNX Runtime computes layers in float32 alone")


def _info(name: str, dtype: Any, shape: Any = None) -> Any:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, element, shape)
