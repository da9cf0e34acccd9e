"""Losses: values by hand, gradients by finite differences, and what they refuse."""

import math
from typing import Any

import numpy as np
import pytest

from fastconv import nn
from gradients import assert_gradient

LABELS = np.array([3, 0, 2, 3, 1])


def example(loss: nn.Loss, rng: np.random.Generator) -> tuple[Any, Any]:
    prediction = 2 * rng.standard_normal((5, 4))
    if isinstance(loss, nn.SoftmaxCrossEntropy):
        return prediction, LABELS
    return prediction, rng.random((5, 4))


@pytest.mark.parametrize(
    "loss", [nn.SoftmaxCrossEntropy(), nn.BinaryCrossEntropy(), nn.MeanSquaredError()]
)
def test_gradients_match_finite_differences(loss: nn.Loss, rng: np.random.Generator) -> None:
    prediction, target = example(loss, rng)
    value = loss(prediction, target)
    assert isinstance(value, float)
    gradient = loss.backward()
    assert_gradient(gradient, lambda: loss.forward(prediction, target), prediction)


@pytest.mark.parametrize(
    "loss", [nn.SoftmaxCrossEntropy(), nn.BinaryCrossEntropy(), nn.MeanSquaredError()]
)
def test_gradients_have_the_dtype_of_the_prediction(
    loss: nn.Loss, rng: np.random.Generator
) -> None:
    prediction, target = example(loss, rng)
    loss.forward(prediction.astype(np.float32), target)
    assert loss.backward().dtype == np.float32
    assert loss.backward().shape == (5, 4)


def test_softmax_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[1.0, 2.0, 5.0], [4.0, 3.0, 1.0]]))
    loss = nn.SoftmaxCrossEntropy()
    assert loss(logits, np.array([2, 1])) == pytest.approx(-(math.log(5 / 8) + math.log(3 / 8)) / 2)
    np.testing.assert_allclose(
        loss.backward(), [[1 / 16, 2 / 16, -3 / 16], [4 / 16, -5 / 16, 1 / 16]]
    )


def test_binary_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[3.0], [0.25]]))  # probabilities 3/4 and 1/5
    loss = nn.BinaryCrossEntropy()
    expected = -(math.log(0.75) + math.log(0.8)) / 2
    assert loss(logits, np.array([[1], [0]])) == pytest.approx(expected)
    np.testing.assert_allclose(loss.backward(), [[-0.125], [0.1]])


def test_mean_squared_error_by_hand() -> None:
    loss = nn.MeanSquaredError()
    assert loss(np.array([[1.0, 2.0, -1.0]]), np.array([[0, 4, 1]])) == 3.0
    np.testing.assert_allclose(loss.backward(), [[2 / 3, -4 / 3, -4 / 3]])


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    cross_entropy = nn.SoftmaxCrossEntropy()
    assert cross_entropy(logits, np.array([0, 0])) == 1e4
    np.testing.assert_array_equal(cross_entropy.backward(), [[0, 0], [-0.5, 0.5]])
    binary = nn.BinaryCrossEntropy()
    assert binary(logits, np.array([[1, 0], [1, 0]])) == 5e3
    np.testing.assert_array_equal(binary.backward(), [[0, 0], [-0.25, 0.25]])


def test_infinite_logits_give_a_nan_loss_without_a_warning() -> None:
    logits = np.array([[np.inf, 0.0]], np.float32)
    assert math.isnan(nn.SoftmaxCrossEntropy()(logits, np.array([0])))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.array([0, 1, 2, 3, 4]), "target has labels from 0 to 4, expected 0 to 3"),
        (np.array([0, -1, 2, 3, 1]), "target has labels from -1 to 3, expected 0 to 3"),
        (LABELS.astype(float), "target has dtype float64, expected integer class labels"),
        (LABELS[:4], r"target has shape \(4,\), expected \(5,\)"),
        (np.eye(4, dtype=int)[LABELS], "one class label a row, not one-hot"),
        (LABELS.tolist(), "list"),
    ],
)
def test_wrong_class_labels(target: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        nn.SoftmaxCrossEntropy()(np.zeros((5, 4)), target)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.zeros((5, 4), int), "prediction has dtype int64, expected float32 or float64"),
        (np.zeros((5, 4, 1)), r"prediction has shape \(5, 4, 1\), expected \(batch, classes\)"),
        (np.zeros((0, 4)), r"prediction has shape \(0, 4\), expected a batch of at least one"),
        ([[0.0, 1.0]], "list"),
    ],
)
def test_wrong_predictions(prediction: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        nn.SoftmaxCrossEntropy()(prediction, LABELS)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.full((2, 3), 1.5), r"target has values in \[1.5, 1.5\], expected \[0, 1\]"),
        (np.full((2, 3), np.nan), "target has values"),
        (np.zeros((3, 2)), r"target has shape \(3, 2\), expected the prediction's \(2, 3\)"),
        (np.zeros((2, 3), complex), "target has dtype complex128, expected real numbers"),
    ],
)
def test_wrong_elementwise_targets(target: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        nn.BinaryCrossEntropy()(np.zeros((2, 3)), target)


def test_backward_needs_forward() -> None:
    with pytest.raises(RuntimeError, match=r"MeanSquaredError.backward needs forward\(\) first"):
        nn.MeanSquaredError().backward()
