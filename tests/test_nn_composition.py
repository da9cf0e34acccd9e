"""Layers made of layers: names, buffers, checkpoints, summary, freezing, and `fit` through them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from checks import assert_same_bits, same_bits
from fastconv import nn, optim


def block(rng: int = 0) -> nn.Residual:
    body = nn.Sequential(
        nn.Conv2d(3, 4, (3, 2), stride=2, padding=((1, 1), (0, 1)), bias=False, rng=rng),
        nn.BatchNorm2d(4),
    )
    return nn.Residual(body, nn.Conv2d(3, 4, 1, stride=2, rng=rng + 1))


def network(rng: int = 0) -> nn.Sequential:
    """For x (N, 3, 7, 6): two residual blocks, the second without a shortcut, and a head."""
    return nn.Sequential(
        nn.BatchNorm2d(3),
        block(rng),
        nn.Residual(nn.Conv2d(4, 4, 3, padding=1, rng=rng + 2), activation=None),
        nn.Flatten(),
        nn.Linear(4 * 4 * 3, 5, rng=rng + 3),
    )


NAMES = [
    *("0.weight", "0.bias", "0.running_mean", "0.running_var"),
    *("1.body.0.weight", "1.body.1.weight", "1.body.1.bias"),
    *("1.body.1.running_mean", "1.body.1.running_var"),
    *("1.shortcut.weight", "1.shortcut.bias", "2.body.weight", "2.body.bias"),
    *("4.weight", "4.bias"),
]


def data(samples: int = 37) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    return rng.standard_normal((samples, 3, 7, 6), np.float32), rng.integers(0, 5, samples)


def fit(model: nn.Sequential, **options: Any) -> nn.History:
    x, y = data()
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 8,
        "optimizer": optim.SGD(0.05, momentum=0.9, weight_decay=0.01),
        "loss": nn.SoftmaxCrossEntropy(),
        "seed": 1,
    }
    return model.fit(x, y, **(settings | options))


def test_state_is_named_by_place_and_parameters_are_part_of_it() -> None:
    model = network()
    assert [state.name for state in model.state()] == NAMES
    assert [p.name for p in model.parameters()] == [n for n in NAMES if "running" not in n]
    assert repr(model.state()[2]) == "Buffer('0.running_mean', shape=(3,), dtype=float32)"


def test_a_checkpoint_holds_the_running_statistics(tmp_path: Path) -> None:
    model = network()
    fit(model)
    x, _ = data()
    model.save(tmp_path / "model.safetensors")
    other = network(rng=9)
    other.load(tmp_path / "model.safetensors")
    assert_same_bits(other.predict(x), model.predict(x))
    for ours, theirs in zip(other.state(), model.state(), strict=True):
        assert_same_bits(ours.data, theirs.data)
    plain = nn.Sequential(*(nn.Flatten() if i == 0 else m for i, m in enumerate(model.layers)))
    with pytest.raises(ValueError, match=r"0\.running_mean is not in the model; 0\.running_var"):
        plain.load(tmp_path / "model.safetensors")


def test_fit_is_the_plain_loop_through_residuals() -> None:
    """No array that `fit` recycles is in use twice, the output of a last Residual included."""
    x, y = data()
    head = nn.Residual(nn.Linear(5, 5, rng=8), activation=None)
    fitted, plain = (nn.Sequential(*network().layers, block_head(head)) for _ in range(2))
    history = fit(fitted, shuffle=False)
    loss, optimizer = nn.SoftmaxCrossEntropy(), optim.SGD(0.05, momentum=0.9, weight_decay=0.01)
    right = 0
    for _ in range(2):
        right = 0
        for start in range(0, len(x), 8):
            prediction = plain.forward(x[start : start + 8])
            right += int((prediction.argmax(axis=1) == y[start : start + 8]).sum())
            loss.forward(prediction, y[start : start + 8])
            plain.backward(loss.backward())
            optimizer.step(plain.parameters())
    for ours, theirs in zip(fitted.state(), plain.state(), strict=True):
        assert_same_bits(ours.data, theirs.data, ours.name)
    assert history["accuracy"][-1] == right / len(x)


def block_head(head: nn.Residual) -> nn.Residual:
    """A layer of its own with the same weights."""
    copy = nn.Residual(nn.Linear(5, 5), activation=None)
    for ours, theirs in zip(copy.state(), head.state(), strict=True):
        ours.data[...] = theirs.data
    return copy


def test_training_is_the_same_on_any_number_of_threads() -> None:
    runs = []
    for threads in (1, 2, 3):
        with fastconv.num_threads(threads):
            model = network()
            runs.append((fit(model)["loss"], [state.data for state in model.state()]))
    for losses, states in runs[1:]:
        assert losses == runs[0][0]
        for ours, first in zip(states, runs[0][1], strict=True):
            assert_same_bits(ours, first)


def test_summary_shows_what_is_inside() -> None:
    lines = network().summary((3, 7, 6)).splitlines()
    words = [line.split() for line in lines]
    assert ["Residual", "4", "x", "4", "x", "3"] in words
    assert ["body:", "Sequential", "4", "x", "4", "x", "3"] in words
    assert any(line.startswith("    Conv2d(3, 4, kernel_size=(3, 2)") for line in lines)
    assert any(line.startswith("  shortcut: Conv2d(3, 4, kernel_size=1") for line in lines)
    parameters = sum(p.data.size for p in network().parameters())
    assert words[-1][-2] == f"{parameters:,}"
    flops = 2 * (4 * 4 * 3) * (3 * 3 * 2 + 3 + 4 * 3 * 3 + 5)
    assert words[-1][-1] == f"{flops / 1e6:.2f}"
    model = network()
    model.summary((3, 7, 6))
    assert all("forward" not in vars(layer) for layer in model.walk())


def test_frozen_layers_stay_and_the_others_learn() -> None:
    model = network()
    *body, head = model.layers
    for layer in body:
        assert layer.freeze() is layer
    before = [state.data.copy() for state in model.state()]
    history = fit(model, epochs=4)
    for state, data in zip(model.state(), before, strict=True):
        assert same_bits(state.data, data) != state.name.startswith("4."), state.name
    assert history["loss"][-1] < history["loss"][0]
    assert all(p.trainable for p in head.parameters())
    model.unfreeze()
    fit(model, epochs=1)
    assert not same_bits(model.state()[2].data, before[2])


def test_gradients_pass_through_a_frozen_layer() -> None:
    model = network()
    model.layers[1].freeze()
    before = [state.data.copy() for state in model.state()]
    fit(model)
    changed = {
        state.name.split(".")[0]
        for state, data in zip(model.state(), before, strict=True)
        if not same_bits(state.data, data)
    }
    assert changed == {"0", "2", "4"}


def test_an_optimizer_skips_the_frozen_and_refuses_another_set() -> None:
    model = network()
    for p in model.parameters():
        p.grad[...] = 1
    model.layers[0].freeze()
    optimizer = optim.Adam(0.1, weight_decay=0.5)
    first = model.parameters()[0].data.copy()
    optimizer.step(model.parameters())
    assert_same_bits(model.parameters()[0].data, first)
    model.unfreeze()
    with pytest.raises(ValueError, match="parameters are not those of the first step"):
        optimizer.step(model.parameters())


def test_a_model_that_is_all_frozen_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match="sequential has no parameters to train"):
        fit(network().freeze())


def test_residual_refuses_what_does_not_add_up() -> None:
    layer = nn.Residual(nn.Conv2d(3, 4, 3))
    with pytest.raises(
        ValueError,
        match=r"body's output has shape \(2, 4, 5, 4\) and the shortcut's \(2, 3, 7, 6\)",
    ):
        layer.forward(np.ones((2, 3, 7, 6), np.float32))


def test_a_layer_may_stand_in_one_place_only() -> None:
    shared = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="a layer appears twice"):
        nn.Sequential(nn.Residual(shared), nn.Sequential(shared))


def test_repr_nests() -> None:
    assert repr(nn.Residual(nn.Linear(3, 3), activation=None)) == (
        "Residual(body=Linear(3, 3), activation=None)"
    )
    assert repr(nn.BatchNorm2d(5, momentum=0.01)) == "BatchNorm2d(5, momentum=0.01)"


def pooled(layout: str) -> nn.Sequential:
    """Each kind of layer that ends in a ReLU, before a max-pool; for x (N, 3, 21, 18)."""
    common: dict[str, Any] = {"layout": layout}
    return nn.Sequential(
        nn.Conv2d(3, 5, (3, 2), activation="relu", rng=1, **common),
        nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0), **common),
        nn.Sequential(nn.Conv2d(5, 4, 2, rng=2, **common), nn.ReLU(), nn.MaxPool2d(2, **common)),
        nn.BatchNorm2d(4, activation="relu", **common),
        nn.MaxPool2d((2, 3), stride=1, **common),
        nn.Flatten(),
        nn.Linear(4 * 3 * 5, 5, rng=3),
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_fit_computes_what_the_layers_compute_one_by_one(layout: str) -> None:
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((24, 3, 21, 18), np.float32), rng.integers(0, 5, 24)
    if layout == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    fitted, stepped = pooled(layout), pooled(layout)
    loss = nn.SoftmaxCrossEntropy()
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "loss": loss, "shuffle": False}
    fitted.fit(x, y, optimizer=optim.SGD(0.05, momentum=0.9), **settings)
    optimizer = optim.SGD(0.05, momentum=0.9)
    for start in (0, 8, 16, 0, 8, 16):
        batch = slice(start, start + 8)
        loss.forward(stepped.forward(x[batch]), y[batch])
        stepped.backward(loss.backward())
        optimizer.step(stepped.parameters())
    for ours, expected in zip(fitted.state(), stepped.state(), strict=True):
        assert_same_bits(ours.data, expected.data)
    assert not any(layer._grad_is_rectified or layer._rectifies_grad for layer in fitted.walk())
