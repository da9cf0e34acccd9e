"""A chain of layers: the model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise

from . import checkpoint
from .layer import Array, Layer
from .summary import table
from .training import Trainable


class Sequential(Trainable):
    """The layers applied in order; itself a layer, so it nests.

    Parameters are named by position ("0.weight", "3.bias"). `name` goes into saved files.
    """

    def __init__(self, *layers: Layer, name: str = "sequential") -> None:
        for position, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"layer {position} must be a Layer, got {type(layer).__name__}")
        self.layers = layers
        self.name = name
        everything = list(self.walk())
        if len({id(layer) for layer in everything}) < len(everything):
            raise ValueError("a layer appears twice; make one for each place, it keeps its input")

    def forward(self, x: Array) -> Array:
        for position, layer in enumerate(self.layers):
            try:
                x = layer.forward(x)
            except (TypeError, ValueError) as error:
                error.add_note(f"in layer {position} of {self.name}: {layer}")
                raise
        return x

    def backward(self, dy: Array) -> Array | None:
        dx: Array | None = dy
        for layer in reversed(self.layers):
            if dx is None:  # a layer was told that nobody needs its input gradient: the chain ends
                break
            dx = layer.backward(dx)
        return dx

    def children(self) -> list[tuple[str, Layer]]:
        return [(str(position), layer) for position, layer in enumerate(self.layers)]

    def neighbours(self) -> Iterator[tuple[Layer, Layer]]:
        """Layers and those that take their output, in this chain and those inside it."""
        yield from pairwise(self.layers)
        for layer in self.walk():
            if isinstance(layer, Sequential) and layer is not self:
                yield from pairwise(layer.layers)

    @property
    def needs_input_grad(self) -> bool:
        """Whether `backward` goes all the way to dx: the flag of the first layer that trains."""
        first = self._first_trained()
        return first is None or first.needs_input_grad

    @needs_input_grad.setter
    def needs_input_grad(self, needed: bool) -> None:
        first = self._first_trained()
        if first is not None:
            first.needs_input_grad = needed

    def summary(self, input_shape: Sequence[int]) -> str:
        """A table of layers, output shapes, parameters and MFLOPs for one input.

        `input_shape` is without the batch axis. MFLOPs are 10⁶ multiplications and additions of
        the convolutions and dense products in one forward pass.
        """
        return table(self, input_shape)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, buffers and the model's name as safetensors, whole or not at all."""
        checkpoint.save(self, path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read parameters and buffers from a safetensors file in place.

        A missing or extra array, or another shape or dtype, is a ValueError that names each of
        them; the model is then as it was.
        """
        checkpoint.load(self, path)

    def extra_repr(self) -> str:
        return ", ".join(map(repr, self.layers))

    def _first_trained(self) -> Layer | None:
        return next(
            (layer for layer in self.layers if any(p.trainable for p in layer.parameters())), None
        )
