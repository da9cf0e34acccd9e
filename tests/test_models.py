"""The named models: their sizes, and that a seed repeats them."""

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import models, nn, optim

# LeCun et al. 1998 counts C3's 1,516 sparse weights and coefficients of the averages: 60,000. The
# others are those of torchvision's models, and of 1 x 1 shortcuts in He et al.'s net of 20 layers.
SIZES = {
    "mnist_convnet": 93_322,
    "mlp": 407_050,
    "lenet5": 61_706,
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512,
    "resnet20": 272_474,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
}
SMALL = ("mnist_convnet", "mlp", "lenet5", "resnet20")


def test_names_are_the_models() -> None:
    assert set(models.NAMES) == set(SIZES)


@pytest.mark.parametrize("name", models.NAMES)
def test_size_and_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(activation: Any, shape: Any, rng: Any, dtype: Any) -> Any:
        return np.zeros(shape, dtype)  # drawing 140 million numbers takes seconds

    monkeypatch.setattr(nn.init, "for_activation", zeros)
    model = models.build(name, rng=1)
    assert model.name == name
    assert sum(p.data.size for p in model.parameters()) == SIZES[name]


@pytest.mark.parametrize("name", SMALL)
def test_output(name: str) -> None:
    x = np.zeros((3, *models.input_shape(name)), np.uint8)
    assert models.build(name, rng=1).predict(x).shape == (3, 10)
    assert models.build(name, rng=1, classes=7).predict(x).shape == (3, 7)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_residual_networks_take_other_extents(name: str) -> None:
    x = np.zeros((2, 3, 40, 57), np.float32)
    assert models.build(name, rng=1, classes=5).predict(x).shape == (2, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.vgg(12), "depth must be one of 11, 13, 16, 19, got 12"),
        (lambda: models.resnet(32), "depth must be one of 18, 20, 34, 50, got 32"),
    ],
)
def test_an_unknown_depth_lists_the_known(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_repeats_the_weights(name: str) -> None:
    first, second, other = (models.build(name, rng=seed).parameters() for seed in (1, 1, 2))
    for p, q, r in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(p.data, q.data)
        assert p.data.ndim == 1 or not np.array_equal(p.data, r.data)


def test_layers_do_not_share_random_numbers() -> None:
    weights = [p.data for p in models.mlp(1).parameters() if p.data.ndim == 2]
    assert not np.isclose(weights[0].ravel()[:50] / weights[1].ravel()[:50], 1, rtol=0.5).all()


@pytest.mark.parametrize("name", SMALL)
def test_training_is_the_same_on_any_number_of_threads(name: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 256, (70, *models.input_shape(name)), np.uint8)
    y = rng.integers(0, 10, 70)
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
        runs.append((history["loss"], [state.data for state in model.state()]))
    for losses, weights in runs[1:]:
        assert losses == runs[0][0]
        for ours, first in zip(weights, runs[0][1], strict=True):
            np.testing.assert_array_equal(ours, first)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        ValueError, match=r"model must be one of mnist_convnet, mlp, .* got 'resnet999'"
    ):
        models.build("resnet999")
