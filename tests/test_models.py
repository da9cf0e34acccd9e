"""The named models: sizes, repeatability, and one training step beside PyTorch."""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import models, nn, optim

SIZES = {"mnist_convnet": 93_322, "mlp": 407_050}


def test_names_are_the_models() -> None:
    assert set(models.NAMES) == set(SIZES)


@pytest.mark.parametrize("name", models.NAMES)
def test_size_name_and_output(name: str) -> None:
    model = models.build(name, rng=1)
    assert model.name == name
    assert sum(p.data.size for p in model.parameters()) == SIZES[name]
    assert model.predict(np.zeros((3, 1, 28, 28), np.uint8)).shape == (3, 10)


@pytest.mark.parametrize("name", models.NAMES)
def test_a_seed_repeats_the_weights(name: str) -> None:
    first, second, other = (models.build(name, rng=seed).parameters() for seed in (1, 1, 2))
    for p, q, r in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
        assert p.name.endswith("bias") or not np.array_equal(p.data, r.data)


def test_layers_do_not_share_random_numbers() -> None:
    weights = [p.data for p in models.mlp(1).parameters() if p.data.ndim == 2]
    assert not np.isclose(weights[0].ravel()[:50] / weights[1].ravel()[:50], 1, rtol=0.5).all()


@pytest.mark.parametrize("name", models.NAMES)
def test_training_is_the_same_on_any_number_of_threads(name: str, rng: np.random.Generator) -> None:
    x, y = rng.integers(0, 256, (70, 1, 28, 28), np.uint8), rng.integers(0, 10, 70)
    runs = []
    for threads in (1, 2, 3):
        model, optimizer = models.build(name, rng=1), optim.RMSprop(1e-3)
        with fastconv.num_threads(threads):
            history = model.fit(
                *(x, y),
                epochs=2,
                batch_size=32,
                optimizer=optimizer,
                loss=nn.SoftmaxCrossEntropy(),
                seed=5,
            )
        runs.append((history["loss"], [p.data for p in model.parameters()]))
    for losses, weights in runs[1:]:
        assert losses == runs[0][0]
        for ours, first in zip(weights, runs[0][1], strict=True):
            np.testing.assert_array_equal(ours, first)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        ValueError, match="model is 'resnet999', expected one of mnist_convnet, mlp"
    ):
        models.build("resnet999")


def torch_twin(torch: Any, model: nn.Sequential) -> Any:
    """The same network in PyTorch, with the same weights."""
    layers = torch.nn
    if model.name == "mlp":
        twin = layers.Sequential(
            *(layers.Flatten(), layers.Linear(784, 512), layers.ReLU(), layers.Linear(512, 10))
        )
    else:
        twin = layers.Sequential(
            *(layers.Conv2d(1, 32, 3), layers.ReLU(), layers.MaxPool2d(2)),
            *(layers.Conv2d(32, 64, 3), layers.ReLU(), layers.MaxPool2d(2)),
            *(layers.Conv2d(64, 64, 3), layers.ReLU(), layers.Flatten()),
            *(layers.Linear(576, 64), layers.ReLU(), layers.Linear(64, 10)),
        )
    for theirs, ours in zip(twin.parameters(), model.parameters(), strict=True):
        theirs.data = torch.tensor(ours.data)
    return twin


@pytest.mark.parametrize("name", models.NAMES)
def test_a_training_step_equals_pytorch(name: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    model = models.build(name, rng=3)
    twin = torch_twin(torch, model)
    x = rng.random((7, 1, 28, 28), np.float32)
    y = rng.integers(0, 10, 7)

    prediction = twin(torch.tensor(x))
    value = torch.nn.functional.cross_entropy(prediction, torch.tensor(y))
    value.backward()
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    expected = [(t.grad.numpy(), t.detach().numpy()) for t in twin.parameters()]

    loss = nn.SoftmaxCrossEntropy()
    np.testing.assert_allclose(model.forward(x), prediction.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert loss.forward(model.forward(x), y) == pytest.approx(value.item(), rel=1e-5)
    model.backward(loss.backward())
    optim.SGD(0.1).step(model.parameters())
    for p, (grad, data) in zip(model.parameters(), expected, strict=True):
        np.testing.assert_allclose(p.grad, grad, rtol=1e-4, atol=1e-5 * np.abs(grad).max())
        np.testing.assert_allclose(p.data, data, rtol=1e-4, atol=1e-6)
