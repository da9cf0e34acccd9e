"""Keras on TensorFlow: a training step of the MNIST convnet, by `fit` as its users call it."""

# mypy: disable-error-code="import-untyped,import-not-found"

import os
from typing import Any

import numpy as np

from fastconv.bench.peers import DECAY, EPSILON, RATE, Array, Call, TrainOperands
from fastconv.bench.problems import Case, TrainProblem


class Runner:
    def __init__(self, threads: int, algorithm: str) -> None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import keras  # after the above, which it reads when it is imported
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
        self._keras: Any = keras
        self.version = keras.__version__
        self.details = {"tensorflow": tensorflow.__version__}

    def train(self, case: Case, problem: TrainProblem, operands: TrainOperands) -> Call:
        layers = self._keras.layers
        model = self._keras.Sequential(
            [
                self._keras.Input((28, 28, 1)),
                layers.Conv2D(32, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Conv2D(64, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Conv2D(64, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(64, activation="relu"),
                layers.Dense(10),
            ]
        )
        model.set_weights(_channels_last(operands.layers))
        model.compile(
            # Keras has epsilon inside the root.
            self._keras.optimizers.RMSprop(RATE, rho=DECAY, epsilon=EPSILON**2),
            self._keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        x = np.ascontiguousarray(operands.x.transpose(0, 2, 3, 1))

        def epoch() -> float:
            history = model.fit(
                x, operands.labels, batch_size=case.batch, epochs=1, shuffle=False, verbose=0
            )
            return float(history.history["loss"][-1])

        return epoch

    def to_numpy(self, case: Case, result: Any) -> Any:
        return result


def _channels_last(layers: tuple[tuple[Array, Array], ...]) -> list[Array]:
    """Keras' order: filters (R, S, C, K), dense (in, out), flat maps with their channels last."""
    (w1, b1), (w2, b2), (w3, b3), (w4, b4), (w5, b5) = layers
    w4 = w4.reshape(-1, 64, 3, 3).transpose(2, 3, 1, 0).reshape(-1, len(w4))
    convs = (w.transpose(2, 3, 1, 0) for w in (w1, w2, w3))
    return [
        array
        for pair in zip((*convs, w4, w5.T), (b1, b2, b3, b4, b5), strict=True)
        for array in pair
    ]
