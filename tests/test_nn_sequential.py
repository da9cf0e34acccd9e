"""Sequential: names, nesting, the summary, prediction, and weights in files."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv import nn


def small(rng: int | None = None, **last: Any) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), activation="relu", rng=rng),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3 * 2 * 2, last.pop("classes", 4), rng=rng, **last),
        name="small",
    )


def images(count: int, rng: np.random.Generator) -> Any:
    return rng.standard_normal((count, 2, 6, 5), np.float32)


def test_parameters_are_named_by_position() -> None:
    names = ["0.weight", "0.bias", "3.weight", "3.bias"]
    model = small()
    assert [p.name for p in model.parameters()] == names
    nested = nn.Sequential(nn.ReLU(), model)
    assert [p.name for p in nested.parameters()] == [f"1.{name}" for name in names]
    assert [p.name for p in model.parameters()] == names
    assert [p.name for p in nn.Linear(2, 3, bias=False).parameters()] == ["weight"]
    assert all(p is q for p, q in zip(model.parameters(), nested.parameters(), strict=True))


def test_train_and_eval_reach_every_layer() -> None:
    dropout = nn.Dropout(0.5)
    model = nn.Sequential(nn.Sequential(dropout), nn.ReLU())
    assert model.eval() is model
    assert not dropout.training
    assert model.train() is model
    assert dropout.training


def test_needs_input_grad_is_the_flag_of_the_first_trained_layer(
    rng: np.random.Generator,
) -> None:
    inner = small(1)
    model = nn.Sequential(nn.ReLU(), inner)
    x = images(2, rng)
    dy = rng.standard_normal(model.forward(x).shape).astype(np.float32)
    dx = model.backward(dy)
    assert dx is not None
    assert dx.shape == x.shape
    model.needs_input_grad = False
    assert not inner.layers[0].needs_input_grad
    assert inner.layers[3].needs_input_grad
    assert model.backward(dy) is None
    model.needs_input_grad = True
    np.testing.assert_array_equal(model.backward(dy), dx)


def test_wrong_layers() -> None:
    relu = nn.ReLU()
    with pytest.raises(ValueError, match="a layer appears twice"):
        nn.Sequential(relu, nn.Sequential(relu))
    wrong: Any = nn.ReLU
    with pytest.raises(TypeError, match=r"layer 1 must be a Layer, got "):
        nn.Sequential(relu, wrong)


def test_an_error_says_which_layer_it_came_from() -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        small().forward(np.ones((1, 2, 8, 8), np.float32))
    assert caught.value.__notes__ == ["in layer 3 of small: Linear(12, 4)"]


def test_summary() -> None:
    # 2 * 2 * 3 * 2 * (3 * 4 * 4) = 1,152 and 2 * 12 * 4 = 96 operations
    model = nn.Sequential(
        nn.Conv2d(2, 3, (3, 2)), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4000)
    )
    assert model.summary((2, 6, 5)).splitlines() == [
        "layer                             output shape  parameters  MFLOPs",
        "------------------------------------------------------------------",
        "Conv2d(2, 3, kernel_size=(3, 2))  3 x 4 x 4             39    0.00",
        "MaxPool2d(2)                      3 x 2 x 2              0    0.00",
        "Flatten()                         12                     0    0.00",
        "Linear(12, 4000)                  4000              52,000    0.10",
        "------------------------------------------------------------------",
        "sequential, total                 4000              52,039    0.10",
    ]
    assert model.training


def test_predict_is_the_forward_pass_in_evaluation_mode(rng: np.random.Generator) -> None:
    model = nn.Sequential(small(1), nn.Dropout(0.5))
    x = images(7, rng)
    whole = model.predict(x)
    np.testing.assert_array_equal(whole, model.eval().forward(x))
    model.train()
    np.testing.assert_allclose(model.predict(x, batch_size=3), whole, rtol=1e-5, atol=1e-6)
    assert model.training
    assert model.predict(x[:0]).shape == (0, 4)


def test_bytes_are_fractions_of_255(rng: np.random.Generator) -> None:
    model = small(1)
    x = rng.integers(0, 256, (3, 2, 6, 5), np.uint8)
    np.testing.assert_array_equal(model.predict(x), model.predict(x.astype(np.float32) / 255))


def test_evaluate_averages_over_samples(rng: np.random.Generator) -> None:
    model = small(1)
    x, y = images(7, rng), rng.integers(0, 4, 7)
    logits = model.predict(x)
    metrics = model.evaluate(x, y, batch_size=3)
    assert metrics["loss"] == pytest.approx(nn.SoftmaxCrossEntropy()(logits, y), rel=1e-6)
    assert metrics["accuracy"] == (logits.argmax(axis=1) == y).mean()
    target = rng.standard_normal((7, 4))
    expected = float(((logits - target) ** 2).mean())
    squared = model.evaluate(x, target, loss=nn.MeanSquaredError(), batch_size=3)
    assert squared == {"loss": pytest.approx(expected, rel=1e-5)}


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((3, 2, 6, 5)), "x has dtype float64, expected the model's float32, or uint8"),
        (np.ones(5, np.float32), r"x has shape \(5,\), expected a batch axis first"),
        ([[1.0, 2.0]], "x .*list"),
    ],
)
def test_predict_refuses_other_inputs(x: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        small().predict(x)


def test_save_and_load_round_trip(tmp_path: Path, rng: np.random.Generator) -> None:
    safetensors = pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    model, other = small(1), small(2)
    model.save(path)
    before = [p.data for p in other.parameters()]
    other.load(str(path))
    x = images(3, rng)
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    assert all(p.data is data for p, data in zip(other.parameters(), before, strict=True))
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"model": "small"}
        assert sorted(file.keys()) == ["0.bias", "0.weight", "3.bias", "3.weight"]
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_load_names_every_mismatch_and_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    nn.Sequential(
        nn.Conv2d(2, 3, (2, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4, dtype="float64")
    ).save(path)
    model = small(1, bias=False)
    before = [p.data.copy() for p in model.parameters()]
    with pytest.raises(ValueError, match="does not fit this model") as caught:
        model.load(path)
    assert str(caught.value).partition(": ")[2] == (
        "0.weight is float32 (3, 2, 2, 3), the model's float32 (3, 2, 3, 2); "
        "3.bias is not in the model; "
        "3.weight is float64 (4, 12), the model's float32 (4, 12)"
    )
    for p, data in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, data)
    with pytest.raises(ValueError, match=r"0\.bias is missing; 0\.weight is missing"):
        small().load(_saved(tmp_path / "other.safetensors", nn.Sequential(nn.ReLU())))


def _saved(path: Path, model: nn.Sequential) -> Path:
    model.save(path)
    return path


def test_load_names_a_broken_file(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        small().load(tmp_path / "absent.safetensors")
    path = _saved(tmp_path / "broken.safetensors", small())
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"broken\.safetensors is not a complete safetensors file"):
        small().load(path)


def test_an_interrupted_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    path = _saved(tmp_path / "model.safetensors", small(1))
    content = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        small(2).save(path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["model.safetensors"]
