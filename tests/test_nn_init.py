"""Initial weights: spread, range, dtype and repeatability."""

import math

import numpy as np
import pytest

from fastconv import nn
from fastconv.nn import init

SHAPE = (60, 40, 3, 5)  # fan_in 600, fan_out 900


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_he_normal_has_variance_two_over_fan_in(dtype: str) -> None:
    weight = init.he_normal(SHAPE, 1, dtype)
    assert weight.dtype == dtype
    assert weight.shape == SHAPE
    # 36,000 draws: four standard errors of the deviation are 1.5 %, of the mean 0.0012.
    assert abs(weight.std() / math.sqrt(2 / 600) - 1) < 0.015
    assert abs(weight.mean()) < 0.0013


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_glorot_uniform_fills_its_range(dtype: str) -> None:
    weight = init.glorot_uniform(SHAPE, 1, dtype)
    assert weight.dtype == dtype
    bound = math.sqrt(6 / (600 + 900))
    assert 0.999 * bound < weight.max() <= bound
    assert -bound <= weight.min() < -0.999 * bound


def test_dense_fans_are_the_features() -> None:
    bound = math.sqrt(6 / (300 + 20))
    assert 0.99 * bound < init.glorot_uniform((20, 300), 1).max() <= bound


def test_layers_choose_he_before_relu_and_zero_biases() -> None:
    relu = nn.Conv2d(4, 5, (2, 3), activation="relu", rng=9)
    np.testing.assert_array_equal(relu.weight.data, init.he_normal((5, 4, 2, 3), 9))
    plain = nn.Linear(7, 3, rng=9)
    np.testing.assert_array_equal(plain.weight.data, init.glorot_uniform((3, 7), 9))
    for bias in (relu.bias, plain.bias):
        assert bias is not None
        assert not bias.data.any()


def test_a_generator_goes_on_and_a_seed_repeats() -> None:
    rng = np.random.default_rng(4)
    first, second = init.he_normal((3, 4), rng), init.he_normal((3, 4), rng)
    np.testing.assert_array_equal(first, init.he_normal((3, 4), 4))
    assert not np.array_equal(first, second)
