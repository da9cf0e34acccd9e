"""BatchNorm2d against its definition in float64, its running statistics, and what it refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv
from checks import Guarded, assert_same_bits
from fastconv import nn, ops
from gradients import assert_layer_gradients
from reference_norm import batch_norm, batch_norm_grad

SHAPE = (5, 19, 7, 11)  # channels beside every vector length

VIEWS: dict[str, Callable[[Any], Any]] = {
    "contiguous": lambda a: a,
    "channels last": lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "backwards": lambda a: np.ascontiguousarray(a[:, ::-1, :, ::-1])[:, ::-1, :, ::-1],
    "every second": lambda a: np.repeat(a, 2, axis=3)[..., ::2],
    "columns first": lambda a: np.ascontiguousarray(a.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0),
}


def layer_of(dtype: Any, rng: np.random.Generator, **options: Any) -> nn.BatchNorm2d:
    """A layer whose weights and running statistics are not the initial ones."""
    layer = nn.BatchNorm2d(SHAPE[1], dtype=dtype, **options)
    for state in layer.state():
        state.data[...] = rng.uniform(0.5, 2, state.data.shape)
    return layer


def near(ours: Any, exact: Any) -> None:
    """Within what the cancellation of dy against its means leaves of the precision."""
    bound = 256 * np.finfo(ours.dtype).eps * max(1.0, float(np.abs(exact).max()))
    assert np.abs(ours - exact).max() <= bound


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_gradients_of_any_strides(
    view: str, dtype: Any, rng: np.random.Generator, threads: int
) -> None:
    layer = layer_of(dtype, rng)
    x, dy = (VIEWS[view](rng.standard_normal(SHAPE).astype(dtype)) for _ in range(2))
    weight, bias = layer.weight.data, layer.bias.data
    near(layer.forward(x), batch_norm(x, weight, bias, layer.eps))
    dx, dw, db = batch_norm_grad(dy, x, weight, layer.eps)
    near(layer.backward(dy), dx)
    near(layer.weight.grad, dw)
    near(layer.bias.grad, db)


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 4, 1, 2), (3, 1, 4, 5), (2, 33, 3, 1)])
def test_small_extents(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    for layout in ("NCHW", "NHWC"):
        layer = nn.BatchNorm2d(shape[1], layout=layout, dtype="float64")
        x, dy = (rng.standard_normal(shape) for _ in range(2))
        to: Any = (lambda a: a) if layout == "NCHW" else (lambda a: a.transpose(0, 2, 3, 1))
        near(layer.forward(to(x)), to(batch_norm(x, layer.weight.data, layer.bias.data, 1e-5)))
        near(layer.backward(to(dy)), to(batch_norm_grad(dy, x, layer.weight.data, 1e-5)[0]))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_results_do_not_depend_on_threads(layout: Any, rng: np.random.Generator) -> None:
    x, dy = (rng.standard_normal((9, 40, 23, 48), np.float32) for _ in range(2))
    results = []
    for threads in (1, 2, 3):
        layer = nn.BatchNorm2d(40 if layout == "NCHW" else 48, layout=layout)
        with fastconv.num_threads(threads):
            results.append((layer.forward(x), layer.backward(dy), *(s.data for s in layer.state())))
            results[-1] += (layer.weight.grad, layer.bias.grad)
    for other in results[1:]:
        for first, again in zip(results[0], other, strict=True):
            assert_same_bits(first, again)


def test_out_is_written_and_nothing_beside_it(rng: np.random.Generator) -> None:
    x = rng.standard_normal(SHAPE, np.float32)
    mean, variance = ops.batch_moments(x)
    guarded = Guarded(SHAPE, np.float32)
    y = ops.batch_norm(x, mean, variance, mean, out=guarded.view)
    assert y is guarded.view
    near(y, (x.astype(float) - at_channel(mean)) * at_channel(variance) + at_channel(mean))
    guarded.check()


def at_channel(a: Any) -> Any:
    return a[:, None, None].astype(float)


def test_running_statistics_follow_pytorchs_rule(rng: np.random.Generator) -> None:
    layer = layer_of(np.float64, rng, momentum=0.3)
    mean, variance = layer.running_mean.data.copy(), layer.running_var.data.copy()
    for _ in range(3):
        x = rng.standard_normal(SHAPE)
        layer.forward(x)
        mean = 0.7 * mean + 0.3 * x.mean(axis=(0, 2, 3))
        variance = 0.7 * variance + 0.3 * x.var(axis=(0, 2, 3), ddof=1)
    np.testing.assert_allclose(layer.running_mean.data, mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.data, variance, rtol=1e-12)


def test_evaluation_uses_and_keeps_the_running_statistics(rng: np.random.Generator) -> None:
    layer = layer_of(np.float64, rng).eval()
    x = rng.standard_normal((1, *SHAPE[1:]))
    before = [state.data.copy() for state in layer.state()]
    weight, bias, mean, variance = (at_channel(a) for a in before)
    near(layer.forward(x), (x - mean) / np.sqrt(variance + 1e-5) * weight + bias)
    assert layer.forward(x[:0]).shape == (0, *SHAPE[1:])
    for state, data in zip(layer.state(), before, strict=True):
        assert_same_bits(state.data, data)


def test_a_frozen_layer_is_a_fixed_map_with_a_gradient(rng: np.random.Generator) -> None:
    layer = layer_of(np.float64, rng).freeze()
    x, dy = (rng.standard_normal(SHAPE) for _ in range(2))
    before = [state.data.copy() for state in layer.state()]
    y = layer.forward(x)
    dx = layer.backward(dy)
    np.testing.assert_array_equal(layer.eval().forward(x), y)
    near(dx, dy * at_channel(before[0] / np.sqrt(before[3] + 1e-5)))
    for state, data in zip(layer.state(), before, strict=True):
        assert_same_bits(state.data, data)


def test_fused_relu_equals_a_relu_layer(rng: np.random.Generator) -> None:
    fused, plain = layer_of(np.float32, rng, activation="relu"), nn.BatchNorm2d(SHAPE[1])
    for ours, theirs in zip(fused.state(), plain.state(), strict=True):
        theirs.data[...] = ours.data
    fused.bias.data[...] = plain.bias.data[...] = 0
    separate = nn.Sequential(plain, nn.ReLU())
    x, dy = (rng.standard_normal(SHAPE, np.float32) for _ in range(2))
    assert_same_bits(fused.forward(x), separate.forward(x))
    through: Any = separate.backward(dy)
    assert_same_bits(fused.backward(dy), through)
    assert_same_bits(fused.weight.grad, plain.weight.grad)


def test_a_mean_far_from_zero_keeps_the_variance(rng: np.random.Generator) -> None:
    x = 1e8 + rng.standard_normal(SHAPE)
    _, variance = ops.batch_moments(x)
    np.testing.assert_allclose(variance, x.var(axis=(0, 2, 3)), rtol=1e-6)


def test_nan_and_infinity_stay_in_their_channel(rng: np.random.Generator) -> None:
    x = rng.standard_normal(SHAPE)
    x[0, 2, 0, 0], x[3, 7, 4, 5] = np.inf, np.nan
    y = nn.BatchNorm2d(SHAPE[1], dtype="float64").forward(x)
    touched = np.isnan(y).any(axis=(0, 2, 3))
    assert np.flatnonzero(touched).tolist() == [2, 7]
    assert np.isnan(y[:, [2, 7]]).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 1, 1), r"x has shape \(1, 3, 1, 1\), so 1 value for each channel, expected at"),
        ((0, 3, 4, 4), "so 0 value for each channel"),
        ((2, 4, 5, 5), r"x has shape \(2, 4, 5, 5\) \(NCHW\), expected 4 axes and 3 channels"),
        ((2, 3), r"x has shape \(2, 3\) \(NCHW\), expected 4 axes"),
    ],
)
def test_wrong_input(shape: tuple[int, ...], message: str) -> None:
    layer = nn.BatchNorm2d(3)
    with pytest.raises(ValueError, match=message):
        layer.forward(np.ones(shape, np.float32))
    assert not layer.running_mean.data.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"channels": 3, "eps": -1.0}, "eps must be a number > 0, got -1.0"),
        ({"channels": 3, "momentum": 1.5}, r"momentum must be a number in \[0, 1\], got 1.5"),
        ({"channels": 3, "layout": "CHWN"}, "layout"),
        ({"channels": 3, "activation": "tanh"}, 'activation must be None or "relu", got .tanh'),
        ({"channels": 3, "dtype": "int8"}, "dtype must be float32 or float64, got int8"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        nn.BatchNorm2d(**arguments)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_gradients_match_finite_differences(layout: Any, rng: np.random.Generator) -> None:
    layer = nn.BatchNorm2d(3, activation="relu", layout=layout, dtype="float64")
    layer.weight.data[...] = [1.5, -0.5, 0.75]
    shape = (2, 3, 4, 2) if layout == "NCHW" else (2, 4, 2, 3)
    assert_layer_gradients(layer, rng.standard_normal(shape), rng)


@pytest.mark.parametrize("training", [True, False])
def test_equals_pytorch(training: bool, rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    ours = layer_of(np.float64, rng)
    theirs = torch.nn.BatchNorm2d(SHAPE[1], dtype=torch.float64)
    names = ("weight", "bias", "running_mean", "running_var")
    theirs.load_state_dict({s.name: torch.tensor(s.data) for s in ours.state()}, strict=False)
    ours._set_training(training)
    theirs.train(training)
    x, dy = (rng.standard_normal(SHAPE) for _ in range(2))
    tensor = torch.tensor(x, requires_grad=True)
    y = theirs(tensor)
    near(ours.forward(x), y.detach().numpy())
    for name in names:
        near(getattr(ours, name).data, getattr(theirs, name).detach().numpy())
    if training:
        y.backward(torch.tensor(dy))
        near(ours.backward(dy), tensor.grad.numpy())
        near(ours.weight.grad, theirs.weight.grad.numpy())
        near(ours.bias.grad, theirs.bias.grad.numpy())
