"""Every instruction set that this machine has, forced in turn in an interpreter of its own."""

import os
from pathlib import Path

import pytest

from checks import run_python
from fastconv import _core

PROGRAM = """
import numpy as np
from cases import CONV_CASES, KERNEL_CASES, random_conv_cases
from checks import (
    ALGORITHMS, DTYPES, ERROR_FACTOR, LAYOUTS, PASSES, assert_close, integer_problem, random_problem
)
from fastconv import _core, ops

assert _core.isa() == {isa!r}
NAMED = [name for name in ALGORITHMS if name != "auto"]  # that may be Winograd, which rounds
for case in (*CONV_CASES, *KERNEL_CASES, *random_conv_cases(20, seed=13)):
    for which in PASSES:
        for algorithm in NAMED if case in KERNEL_CASES else ALGORITHMS:
            for dtype in DTYPES:
                for layout in LAYOUTS:
                    got = integer_problem(case).run(which, dtype, layout, algorithm=algorithm)
                    np.testing.assert_array_equal(got, integer_problem(case).exact(which, layout))
                problem = random_problem(case, dtype)
                got = problem.run(which, dtype, algorithm=algorithm)
                length = problem.reduction[which]
                assert_close(got, problem.exact(which), ERROR_FACTOR[algorithm], length)

a = np.arange(71 * 53).reshape(71, 53) % 9 - 4
b = np.arange(53 * 67).reshape(53, 67) % 7 - 3
for dtype in DTYPES:
    for left, right in ((a, b), (b.T, a.T)):
        got = ops.matmul(left.astype(dtype), right.astype(dtype))
        np.testing.assert_array_equal(got, np.einsum("mk,kn->mn", left, right))
"""


@pytest.mark.parametrize("isa", _core.available_isas())
def test_results_on_each_instruction_set(isa: str) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    run_python(PROGRAM.format(isa=isa), FASTCONV_ISA=isa, PYTHONPATH=path)
