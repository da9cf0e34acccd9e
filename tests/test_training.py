"""`fit`: it learns, it repeats bit for bit, and it leaves the model usable."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import nn, optim
from fastconv.data import augment
from fastconv.nn.training import Metrics


def blobs(count: int, seed: int = 0) -> tuple[Any, Any]:
    """Noisy bytes with one bright quadrant, whose number (0 to 3) is the label."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 120, (count, 1, 10, 8), np.uint8)
    y = rng.integers(0, 4, count)
    for image, label in zip(x[:, 0], y, strict=True):
        row, column = divmod(int(label), 2)
        image[5 * row : 5 * row + 5, 4 * column : 4 * column + 4] += 60
    return x, y


def convnet(rng: int = 1, dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, (3, 2), activation="relu", rng=rng),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 2, rng=rng + 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(5 * 3 * 2, 4, rng=rng + 2),
    )


def fit(model: nn.Sequential, x: Any, y: Any, **options: Any) -> nn.History:
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 16,
        "optimizer": optim.Adam(1e-2),
        "loss": nn.SoftmaxCrossEntropy(),
        "seed": 3,
    }
    return model.fit(x, y, **(settings | options))


def weights(model: nn.Sequential) -> list[Any]:
    return [p.data.copy() for p in model.parameters()]


def assert_same(model: nn.Sequential, expected: Sequence[Any]) -> None:
    for p, data in zip(model.parameters(), expected, strict=True):
        np.testing.assert_array_equal(p.data, data)


class Recorder(nn.Callback):
    """Everything that `fit` reports, in order."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.epochs: list[Metrics] = []
        self.stop_after = stop_after

    def on_epoch_begin(self, epoch: int, steps: int) -> None:
        self.events.append(("begin", epoch, steps))

    def on_batch_end(self, epoch: int, step: int, metrics: Metrics) -> None:
        self.events.append(("batch", epoch, step))
        assert set(metrics) == {"loss", "accuracy", "lr", "seconds", "images_per_second"}

    def on_epoch_end(self, epoch: int, metrics: Metrics) -> bool | None:
        self.events.append(("end", epoch))
        self.epochs.append(metrics)
        return epoch == self.stop_after


def test_a_convnet_learns_and_generalises() -> None:
    model = convnet()
    history = fit(model, *blobs(400), epochs=6, validation_data=blobs(100, seed=9))
    assert history["loss"][-1] < history["loss"][0] / 4
    assert history["val_accuracy"][-1] > 0.95
    assert model.evaluate(*blobs(100, seed=9))["accuracy"] == history["val_accuracy"][-1]


def test_regression_learns_without_an_accuracy() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 3))
    y = x @ np.array([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]]) + 0.25
    model = nn.Sequential(nn.Linear(3, 2, dtype="float64", rng=1))
    settings = {"optimizer": optim.SGD(0.1, momentum=0.9), "loss": nn.MeanSquaredError()}
    history = fit(model, x, y, epochs=30, **settings)
    assert history["loss"][-1] < 1e-6
    assert "accuracy" not in history


def test_binary_classification_learns() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 2), np.float32)
    y = (x[:, :1] > x[:, 1:]).astype(np.int64)
    model = nn.Sequential(nn.Linear(2, 1, rng=1))
    fit(model, x, y, epochs=20, optimizer=optim.RMSprop(0.05), loss=nn.BinaryCrossEntropy())
    assert ((model.predict(x) > 0) == y).mean() > 0.97


def test_a_seed_repeats_bit_for_bit_on_any_number_of_threads() -> None:
    x, y = blobs(70)
    results = []
    for threads in (1, 2, 3):
        with fastconv.num_threads(threads):
            model = convnet(dropout=0.3)
            history = fit(model, x, y, validation_data=(x, y))
        results.append((weights(model), history["loss"], history["val_loss"]))
    for data, loss, validation_loss in results[1:]:
        for ours, first in zip(data, results[0][0], strict=True):
            np.testing.assert_array_equal(ours, first)
        assert (loss, validation_loss) == results[0][1:]
    assert fit(convnet(dropout=0.3), x, y, seed=4)["loss"] != results[0][1]


def test_a_second_fit_with_the_seed_draws_the_same_dropout() -> None:
    x, y = blobs(40)
    model = convnet(dropout=0.5)
    start = weights(model)
    fit(model, x, y)
    first = weights(model)
    for p, data in zip(model.parameters(), start, strict=True):
        p.data[...] = data
    fit(model, x, y, optimizer=optim.Adam(1e-2))
    assert_same(model, first)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_fit_is_the_plain_loop(dtype: Any) -> None:
    """Recycled arrays, the skipped input gradient and the batch buffers change no bit."""
    x, y = blobs(43)  # two batches of 16 and one of 11
    scaled = x.astype(np.float32) / 255
    model, loss, optimizer = convnet(), nn.SoftmaxCrossEntropy(), optim.Adam(1e-2)
    for _ in range(2):
        for start in range(0, 43, 16):
            loss.forward(model.forward(scaled[start : start + 16]), y[start : start + 16])
            model.backward(loss.backward())
            optimizer.step(model.parameters())
    fitted = convnet()
    fit(fitted, x if dtype == np.uint8 else scaled, y, shuffle=False)
    assert_same(fitted, weights(model))


def test_fit_of_many_channels_is_the_plain_loop_but_for_rounding() -> None:
    """Where activations lie channels last in memory, the layout of the layers notwithstanding."""

    def wide() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, rng=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Residual(nn.Conv2d(32, 32, 3, padding=1, activation="relu", rng=2)),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 40, 3, activation="relu", rng=3),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(40, 4, rng=4),
        )

    x, y = blobs(43)
    x = x.astype(np.float32) / 255
    model, loss, optimizer = wide(), nn.SoftmaxCrossEntropy(), optim.SGD(1e-2)
    for start in range(0, 43, 16):
        loss.forward(model.forward(x[start : start + 16]), y[start : start + 16])
        model.backward(loss.backward())
        optimizer.step(model.parameters())
    fitted = wide()
    fit(fitted, x, y, epochs=1, optimizer=optim.SGD(1e-2), shuffle=False)
    for ours, theirs in zip(fitted.state(), model.state(), strict=True):
        np.testing.assert_allclose(ours.data, theirs.data, rtol=2e-5, atol=1e-6)


def test_shuffling_visits_every_sample_once_an_epoch() -> None:
    class Seen(nn.Layer):
        def __init__(self) -> None:
            self.rows: list[Any] = []

        def forward(self, x: Any) -> Any:
            self.rows.append(x[:, 0].copy())
            return x

        def backward(self, dy: Any) -> Any:
            return dy

    seen = Seen()
    model = nn.Sequential(seen, nn.Linear(1, 2, rng=1))
    x = np.arange(23, dtype=np.float32)[:, None]
    fit(model, x, np.zeros(23, int), batch_size=5, optimizer=optim.SGD(0.0))
    assert [len(rows) for rows in seen.rows] == [5, 5, 5, 5, 3] * 2
    first, second = np.concatenate(seen.rows[:5]), np.concatenate(seen.rows[5:])
    np.testing.assert_array_equal(np.sort(first), x[:, 0])
    np.testing.assert_array_equal(np.sort(second), x[:, 0])
    assert not np.array_equal(first, x[:, 0])
    assert not np.array_equal(first, second)


def test_augment_changes_each_batch_by_the_seed_alone() -> None:
    x, y = blobs(40)
    seen: list[Any] = []

    def noting(batch: Any, rng: np.random.Generator) -> Any:
        seen.append((batch.shape, batch.dtype, rng.integers(1 << 30)))
        return augment(batch, rng, shift=1)

    model, again, plain = convnet(), convnet(), convnet()
    fit(model, x, y, augment=noting)
    fit(again, x, y, augment=noting)
    fit(plain, x, y)
    assert [shape[0] for shape, *_ in seen[:6]] == [16, 16, 8] * 2
    assert {dtype for _, dtype, _ in seen} == {np.dtype(np.uint8)}
    assert seen[:6] == seen[6:]
    assert len({draw for *_, draw in seen}) == 6
    assert_same(model, weights(again))
    assert not np.array_equal(weights(model)[0], weights(plain)[0])


def test_augment_must_keep_the_form_of_a_batch() -> None:
    with pytest.raises(ValueError, match=r"augment returned shape .* and dtype float64, expected"):
        fit(convnet(), *blobs(20), augment=lambda batch, rng: batch / 255)


def test_history_and_callbacks() -> None:
    x, y = blobs(40)
    recorder = Recorder()
    schedule = optim.StepDecay(0.01, 3)
    history = fit(
        *(convnet(), x, y),
        validation_data=(x[:20], y[:20]),
        callbacks=[recorder],
        optimizer=optim.SGD(schedule),
    )
    batches = [[("batch", epoch, step) for step in range(3)] for epoch in range(2)]
    assert recorder.events == [
        *(("begin", 0, 3), *batches[0], ("end", 0)),
        *(("begin", 1, 3), *batches[1], ("end", 1)),
    ]
    assert history.rows() == recorder.epochs
    assert history["lr"] == pytest.approx([0.01, 0.001])
    names = {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds", "images_per_second"}
    assert set(history) == names
    rate = history["images_per_second"][0] * history["seconds"][0]
    assert rate == pytest.approx(40)


def test_a_callback_stops_after_all_have_heard() -> None:
    stopper, listener = Recorder(stop_after=1), Recorder()
    history = fit(convnet(), *blobs(20), epochs=9, callbacks=[stopper, listener])
    assert len(history["loss"]) == 2
    assert listener.events[-1] == ("end", 1)


def test_fit_leaves_modes_and_gradients_as_they_were() -> None:
    model = convnet(dropout=0.5).eval()
    x, y = blobs(20)
    fit(model, x, y)
    assert not any(layer.training for layer in model.walk())
    assert model.needs_input_grad
    model.train()
    scaled = x.astype(np.float32) / 255
    dx = model.backward(np.ones_like(model.forward(scaled)))
    assert dx is not None
    assert dx.shape == x.shape
    assert not np.shares_memory(model.forward(scaled), model.forward(scaled))


def test_windows_may_be_lists() -> None:
    x, y = blobs(40)

    def trained(window: Any) -> nn.Sequential:
        pools = nn.MaxPool2d(window), nn.AvgPool2d(window), nn.AdaptiveAvgPool2d(window)
        model = nn.Sequential(*pools, nn.Flatten(), nn.Linear(4, 4, rng=1))
        fit(model, x, y)
        return model

    assert_same(trained([2, 2]), weights(trained((2, 2))))


def test_outputs_computed_during_training_are_not_reused() -> None:
    x, y = blobs(40)
    x = x.astype(np.float32) / 255
    model = convnet()
    kept: list[tuple[Any, Any]] = []

    class Evaluate(nn.Callback):
        def on_batch_end(self, epoch: int, step: int, metrics: Metrics) -> None:
            output = model.eval().forward(x[:16])
            kept.append((output, output.copy()))
            model.train()

    fit(model, x, y, callbacks=[Evaluate()])
    assert len(kept) == 6
    for output, copy in kept:
        np.testing.assert_array_equal(output, copy)
    assert_same(model, weights(_fitted(x, y)))


def _fitted(x: Any, y: Any) -> nn.Sequential:
    model = convnet()
    fit(model, x, y)
    return model


def test_an_interrupt_leaves_a_usable_model() -> None:
    class Interrupt(nn.Callback):
        def on_batch_end(self, epoch: int, step: int, metrics: Metrics) -> None:
            if step == 1:
                raise KeyboardInterrupt

    x, y = blobs(40)
    model = convnet()
    start = weights(model)
    with pytest.raises(KeyboardInterrupt):
        fit(model, x, y, callbacks=[Interrupt()])
    assert model.needs_input_grad
    assert not np.array_equal(model.parameters()[0].data, start[0])
    assert math.isfinite(model.evaluate(x, y)["loss"])
    fit(model, x, y)


def test_divergence_is_one_error_and_no_warning() -> None:
    message = r"the loss is (nan|inf) in epoch 1, step \d+, at learning rate 1e\+30: lower"
    with pytest.raises(FloatingPointError, match=message):
        fit(convnet(), *blobs(200), optimizer=optim.SGD(1e30))


X, Y = blobs(8)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (X, Y[:7], {}, r"x has 8 samples and y has shape \(7,\), expected as many of each"),
        (X[:0], Y[:0], {}, "x has 0 samples"),
        (X.astype(float), Y, {}, "x has dtype float64, expected the model's float32"),
        (X, Y.astype(float), {}, "target has dtype float64, expected integer class labels"),
        (X, Y + 1, {}, "target has labels from .* to 4, expected 0 to 3"),
        (X, Y.tolist(), {}, "y .*list"),
        (X, Y, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (X, Y, {"epochs": 0}, "epochs must be at least 1, got 0"),
        (X, Y, {"validation_data": (X, Y[:3])}, "validation x has 8 samples and validation y"),
    ],
)
def test_wrong_arguments(x: Any, y: Any, options: dict[str, Any], message: str) -> None:
    model = convnet()
    start = weights(model)
    with pytest.raises((TypeError, ValueError), match=message):
        fit(model, x, y, **options)
    assert_same(model, start)


def test_a_model_without_parameters_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match="sequential has no parameters to train"):
        fit(nn.Sequential(nn.Flatten()), X.astype(np.float32), Y)
