"""Training: what a model has beyond its layers, `fit`, `evaluate` and `predict`."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from .._backend.dispatch import namespace, resolve
from .._checks import positive
from .dropout import Dropout
from .layer import Array, Layer, evaluating, move
from .losses import Loss, SoftmaxCrossEntropy

if TYPE_CHECKING:
    from ..optim import Optimizer

Metrics = dict[str, float]
Augment = Callable[[Array, np.random.Generator], Array]


class Callback:
    """Hooks into `fit`; override those you need. Epochs and steps count from 0.

    `metrics` holds "loss", "accuracy" (class labels only), "lr", "seconds" (training time of this
    epoch) and "images_per_second", so far in the epoch; at its end also "val_loss" and
    "val_accuracy" where there are validation data.
    """

    def on_epoch_begin(self, epoch: int, steps: int) -> None:
        """Before an epoch of `steps` batches."""

    def on_batch_end(self, epoch: int, step: int, metrics: Metrics) -> None:
        """After each update of the weights."""

    def on_epoch_end(self, epoch: int, metrics: Metrics) -> bool | None:
        """After each epoch and its validation. Return True to stop training."""


class History(dict[str, list[float]]):
    """The metrics by name, one value an epoch: history["val_accuracy"][-1]."""

    def append(self, metrics: Metrics) -> None:
        """Add one epoch."""
        for name, value in metrics.items():
            self.setdefault(name, []).append(value)

    def rows(self) -> list[Metrics]:
        """The metrics by epoch, for tables and JSON."""
        return [dict(zip(self, values, strict=True)) for values in zip(*self.values(), strict=True)]


@dataclass(slots=True)
class _Means:
    """Loss and accuracy over the samples seen so far."""

    loss_sum: float = 0.0
    correct: int | None = None
    samples: int = 0

    def add(self, loss: float, prediction: Array, target: Array) -> None:
        self.samples += len(target)
        self.loss_sum += loss * len(target)
        if target.dtype.kind in "iu" and target.ndim == 1 and prediction.ndim == 2:
            right = int((prediction.argmax(axis=1) == target).sum())
            self.correct = right + (self.correct or 0)

    def metrics(self) -> Metrics:
        means = {"loss": self.loss_sum / self.samples}
        if self.correct is not None:
            means["accuracy"] = self.correct / self.samples
        return means


class Trainable(Layer):
    """A layer that is trained by itself: a model. `name` goes into saved files."""

    name: str

    @abstractmethod
    def neighbours(self) -> Iterator[tuple[Layer, Layer]]:
        """The pairs of layers inside this one of which the second takes the first's output."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The dtype of the parameters, which inputs share; float32 where there are none."""
        parameters = self.parameters()
        return parameters[0].data.dtype if parameters else np.dtype(np.float32)

    def fit(
        self,
        x: Array,
        y: Array,
        *,
        epochs: int,
        batch_size: int,
        optimizer: Optimizer,
        loss: Loss,
        validation_data: tuple[Array, Array] | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        callbacks: Sequence[Callback] = (),
        augment: Augment | None = None,
    ) -> History:
        """Train on samples x (first axis) with targets y, and return what each epoch measured.

        x has the model's dtype, or is uint8 and taken as x / 255. The last batch may be smaller.
        augment(batch, rng) changes each batch of x before it is used, as `data.augment` does.
        A `seed` repeats a run bit for bit, on any number of threads. Raises FloatingPointError
        when the loss is no longer finite. An interrupt leaves the weights of the last step.
        """
        x, y = _samples(self, x, y)
        if validation_data is not None:
            validation_data = _samples(self, *validation_data, prefix="validation ")
        if augment is not None and namespace(x) is not np:
            raise ValueError("augment takes NumPy batches: train on the CPU, or augment beforehand")
        if not any(p.trainable for p in self.parameters()):
            raise ValueError(f"{self.name} has no parameters to train")
        rng = np.random.default_rng(seed)
        _seed_dropout(self, rng)
        augment_rng = rng.spawn(1)[0]
        steps = math.ceil(len(x) / positive("batch_size", batch_size))
        history = History()
        # Overflow on the way to divergence is reported once, by the loss, not as many warnings.
        with _fitting(self), np.errstate(all="ignore"):
            for epoch in range(positive("epochs", epochs)):
                for callback in callbacks:
                    callback.on_epoch_begin(epoch, steps)
                order = rng.permutation(len(x)) if shuffle else np.arange(len(x))
                batches = _batches(x, y, order, batch_size)
                if augment is not None:
                    batches = _augmented(batches, augment, augment_rng)
                inputs = _converted(batches, self.dtype)
                metrics = _train_epoch(self, inputs, epoch, optimizer, loss, callbacks)
                if validation_data is not None:
                    validation = self.evaluate(*validation_data, loss=loss)
                    metrics |= {f"val_{name}": value for name, value in validation.items()}
                history.append(metrics)
                stops = [callback.on_epoch_end(epoch, metrics) for callback in callbacks]
                if any(stops):
                    break
        return history

    def evaluate(
        self, x: Array, y: Array, *, loss: Loss | None = None, batch_size: int = 256
    ) -> Metrics:
        """The mean "loss" over all samples and, for class labels, the "accuracy" in [0, 1].

        `loss` is SoftmaxCrossEntropy unless given.
        """
        x, y = _samples(self, x, y)
        loss = SoftmaxCrossEntropy() if loss is None else loss
        means = _Means()
        with evaluating(self):
            for part in _parts(len(x), batch_size):
                prediction = self.forward(_as_input(x[part], self.dtype))
                means.add(loss.forward(prediction, y[part]), prediction, y[part])
        return means.metrics()

    def predict(self, x: Array, batch_size: int = 256) -> Array:
        """The model's raw output (logits) for all samples, in evaluation mode."""
        backend, (x,) = resolve("x", x)
        _check_input(self, x, "x")
        own = _namespace(self)
        x = move(x, own)
        with evaluating(self):
            outputs = [
                self.forward(_as_input(x[part], self.dtype)) for part in _parts(len(x), batch_size)
            ]
        return move(own.concatenate(outputs), backend.xp)


def _seed_dropout(model: Layer, rng: np.random.Generator) -> None:
    """Give each Dropout a generator of its own, from `rng`."""
    for layer in model.walk():
        if isinstance(layer, Dropout):
            layer.seed(rng.spawn(1)[0])


def _train_epoch(
    model: Trainable,
    batches: Iterator[tuple[Array, Array]],
    epoch: int,
    optimizer: Optimizer,
    loss: Loss,
    callbacks: Sequence[Callback],
) -> Metrics:
    parameters = model.parameters()
    means = _Means()
    metrics: Metrics = {}
    started = time.perf_counter()
    for step, (x, y) in enumerate(batches):
        prediction = model.forward(x)
        value = loss.forward(prediction, y)
        lr = optimizer.current_lr
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the loss is {value} in epoch {epoch + 1}, step {step + 1}, at learning rate "
                f"{lr:g}: lower the learning rate, and check the data for NaN and Inf"
            )
        means.add(value, prediction, y)
        model.backward(loss.backward())
        optimizer.step(parameters)
        seconds = time.perf_counter() - started
        metrics = means.metrics() | {
            "lr": lr,
            "seconds": seconds,
            "images_per_second": means.samples / seconds,
        }
        for callback in callbacks:
            callback.on_batch_end(epoch, step, metrics)
    return metrics


@contextmanager
def _fitting(model: Trainable) -> Iterator[None]:
    """Training mode, recycled arrays, no gradient for the data, no pass for a ReLU's gradient that
    the next layer can do; all as it was afterwards."""
    layers = list(model.walk())
    modes = [layer.training for layer in layers]
    needs_input_grad = model.needs_input_grad
    model.train()
    model.needs_input_grad = False
    for layer in layers:
        layer._recycled = {}
    for before, after in model.neighbours():
        rectified = before.activation == "relu" and after._can_rectify_grad
        before._grad_is_rectified = after._rectifies_grad = rectified
    try:
        yield
    finally:
        model.needs_input_grad = needs_input_grad
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode
            layer._recycled = layer._saved = None
            layer._rectifies_grad = layer._grad_is_rectified = False


def _batches(x: Array, y: Array, order: Array, batch_size: int) -> Iterator[tuple[Array, Array]]:
    """Minibatches in `order`, x in a buffer that the next batch overwrites."""
    xp = namespace(x)
    if xp is not np:  # the samples stay on the device: one gather a batch, from CuPy's pool
        order = xp.asarray(order)
        for part in _parts(len(order), batch_size):
            yield x[order[part]], y[order[part]]
        return
    gathered = np.empty((min(batch_size, len(x)), *x.shape[1:]), x.dtype)
    for part in _parts(len(order), batch_size):
        chosen = order[part]
        # The indices are in range; mode="raise" would gather into a temporary first.
        yield x.take(chosen, axis=0, out=gathered[: len(chosen)], mode="clip"), y[chosen]


def _augmented(
    batches: Iterator[tuple[Array, Array]], augment: Augment, rng: np.random.Generator
) -> Iterator[tuple[Array, Array]]:
    """The batches with x as `augment` returns it."""
    for x, y in batches:
        changed = augment(x, rng)
        if (changed.shape, changed.dtype) != (x.shape, x.dtype):
            raise ValueError(
                f"augment returned shape {changed.shape} and dtype {changed.dtype}, expected those "
                f"of its batch, {x.shape} and {x.dtype}"
            )
        yield changed, y


def _converted(
    batches: Iterator[tuple[Array, Array]], dtype: DTypeLike
) -> Iterator[tuple[Array, Array]]:
    """The batches with x as the model takes it, in a buffer that the next batch overwrites."""
    buffer: Array | None = None
    for x, y in batches:
        if buffer is None and x.dtype == np.uint8:  # the first batch: no later one is larger
            buffer = namespace(x).empty(x.shape, dtype)
        yield _as_input(x, dtype, buffer), y


def _as_input(x: Array, dtype: DTypeLike, buffer: Array | None = None) -> Array:
    """x as the model takes it: bytes become numbers in [0, 1]."""
    if x.dtype != np.uint8:
        return x
    out = None if buffer is None else buffer[: len(x)]
    scaled: Array = np.divide(x, 255, out=out, dtype=dtype)
    return scaled


def _parts(samples: int, batch_size: int) -> Iterator[slice]:
    """Consecutive slices of batch_size samples, the last one shorter; one empty slice for none."""
    size = positive("batch_size", batch_size)
    for start in range(0, max(samples, 1), size):
        yield slice(start, min(start + size, samples))


def _samples(model: Trainable, x: Array, y: Array, prefix: str = "") -> tuple[Array, Array]:
    """x and y as arrays, if they are as many samples and x is what the model takes."""
    _, (x, y) = resolve(f"{prefix}x, {prefix}y", x, y)
    _check_input(model, x, f"{prefix}x")
    if len(x) == 0 or x.shape[:1] != y.shape[:1]:
        raise ValueError(
            f"{prefix}x has {len(x)} samples and {prefix}y has shape {y.shape}, expected as many "
            "of each, at least one"
        )
    xp = _namespace(model)
    return move(x, xp), move(y, xp)


def _namespace(model: Trainable) -> Any:
    """numpy or cupy: where the model's parameters are."""
    parameters = model.parameters()
    return namespace(parameters[0].data) if parameters else np


def _check_input(model: Trainable, x: Array, name: str) -> None:
    if x.ndim < 2:
        raise ValueError(f"{name} has shape {x.shape}, expected a batch axis first: x[None]")
    if x.dtype not in (model.dtype, np.uint8):
        raise TypeError(
            f"{name} has dtype {x.dtype}, expected the model's {model.dtype}, or uint8 images; "
            f"convert with x.astype({model.dtype.name!r})"
        )
