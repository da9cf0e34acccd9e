"""PyTorch as a second oracle, where it is installed."""

import warnings
from typing import Any

import numpy as np
import pytest

import fastconv
from cases import CONV_CASES, POOL_CASES, ConvCase, PoolCase, random_conv_cases, random_pool_cases
from checks import integer_problem

torch = pytest.importorskip("torch", reason="PyTorch is a second oracle, and optional")

CONV = [c for c in (*CONV_CASES, *random_conv_cases(20, seed=9)) if 0 not in (*c.x, *c.w)]


def pads_that_torch_takes(case: PoolCase) -> bool:
    """PyTorch pads both sides alike, to at most half the window without its dilation."""
    return 0 not in case.x and all(
        a.before == a.after and 2 * a.before <= a.taps for a in case.axes
    )


POOL = [c for c in (*POOL_CASES, *random_pool_cases(30, seed=10)) if pads_that_torch_takes(c)]


@pytest.mark.parametrize("case", CONV, ids=str)
def test_convolution(case: ConvCase) -> None:
    problem = integer_problem(case)
    x, w = (torch.tensor(a, requires_grad=True) for a in (problem.x, problem.w))
    bias = torch.tensor(problem.bias, requires_grad=True)
    height, width = case.axes
    y = torch.nn.functional.conv2d(
        torch.nn.functional.pad(x, (width.before, width.after, height.before, height.after)),
        w,
        bias,
        stride=case.stride,
        dilation=case.dilation,
        groups=case.groups,
    )
    y.backward(torch.tensor(problem.dy))
    np.testing.assert_array_equal(problem.run("forward", "float64"), y.detach().numpy())
    np.testing.assert_array_equal(problem.run("input", "float64"), x.grad.numpy())
    np.testing.assert_array_equal(problem.run("weight", "float64"), w.grad.numpy())
    np.testing.assert_array_equal(fastconv.conv2d_grad_bias(problem.dy), bias.grad.numpy())


@pytest.mark.parametrize("case", POOL, ids=str)
def test_max_pool(case: PoolCase, rng: np.random.Generator) -> None:
    x = rng.integers(-3, 4, case.x).astype(np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    keywords: dict[str, Any] = {
        **case.geometry,
        "stride": case.kernel_size if case.stride is None else case.stride,
        "padding": tuple(a.before for a in case.axes),
    }
    want, want_indices = torch.nn.functional.max_pool2d(
        tensor, case.kernel_size, return_indices=True, **keywords
    )
    y, indices = fastconv.max_pool2d(x, case.kernel_size, return_indices=True, **case.geometry)
    np.testing.assert_array_equal(y, want.detach().numpy())
    real = indices >= 0  # PyTorch numbers a cell outside where a window meets padding alone
    np.testing.assert_array_equal(indices[real], want_indices.numpy()[real])

    if real.all():
        dy = rng.integers(-4, 5, y.shape).astype(np.float32)
        want.backward(torch.tensor(dy))
        dx = fastconv.max_pool2d_grad(dy, indices, x.shape)
        np.testing.assert_array_equal(dx, tensor.grad.numpy())


def test_tensors_are_taken_without_a_copy_and_answered_with_numpy() -> None:
    problem = integer_problem(CONV_CASES[0])
    x, w = (torch.tensor(a, dtype=torch.float32) for a in (problem.x, problem.w))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = fastconv.conv2d(x, w, torch.tensor(problem.bias, dtype=torch.float32))
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, problem.exact("forward"))
