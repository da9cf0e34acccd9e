"""What every layer is: a forward pass, a backward pass, and parameters with gradients."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import ops
from .._backend.dispatch import cuda
from .._backend.geometry import AxisArgument, check_layout, per_axis
from ..ops.options import Activation, Layout

Array = NDArray[Any]


class Buffer:
    """An array that is saved with a model but not trained, such as a running mean.

    `name` is its place in the model it was last listed from ("1.running_mean").
    """

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: Array) -> None:
        self.name = name
        self.data = data

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"{kind}({self.name!r}, shape={self.data.shape}, dtype={self.data.dtype})"


#: Of an image: fewer leave vectors along them half empty.
_MANY_CHANNELS = 32


class Parameter(Buffer):
    """A trained array and its gradient, of one shape and dtype.

    A backward pass overwrites `grad` in place; an optimizer updates `data` in place, unless
    `trainable` is False (see `Layer.freeze`).
    """

    __slots__ = ("grad", "trainable")

    def __init__(self, name: str, data: Array) -> None:
        super().__init__(name, data)
        self.grad: Array = np.zeros_like(data)
        self.trainable = True


class Layer(ABC):
    """Base of all layers. A subclass writes `forward` and `backward`.

    A `Parameter` set as an attribute is trained and saved, a `Buffer` saved, a layer is part of
    this one. In training mode (the default) `forward` keeps in `self._saved` what `backward` needs;
    in evaluation mode it keeps nothing.
    """

    training: bool = True
    needs_input_grad: bool = True  # False on the first trained layer: its input is the data
    _saved: Any = None
    activation: Activation = None  # what the layer's output has been through last
    _recycled: dict[Any, Any] | None = None  # a dict inside `fit`, see `_compute`
    # Inside `fit`, where a layer that can comes after a ReLU: it returns the gradient of what went
    # into that ReLU, and the layer with the ReLU need not do it.
    _can_rectify_grad: bool = False
    _rectifies_grad: bool = False
    _grad_is_rectified: bool = False

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """Return y for a batch x, whose first axis is the batch."""

    @abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """Overwrite the parameters' gradients for dy = dloss/dy of the last forward pass.

        Returns dx, or None where `needs_input_grad` is False.
        """

    def __call__(self, x: Array) -> Array:
        return self.forward(x)

    def children(self) -> list[tuple[str, Layer]]:
        """The layers directly inside this one, in forward order, with their names within it."""
        return [(name, layer) for name, layer in vars(self).items() if isinstance(layer, Layer)]

    def walk(self) -> Iterator[Layer]:
        """This layer and every layer inside it, in forward order."""
        yield self
        for _, layer in self.children():
            yield from layer.walk()

    def named_state(self) -> list[tuple[str, Buffer]]:
        """All parameters and buffers with their names within this layer."""
        own = [(name, state) for name, state in vars(self).items() if isinstance(state, Buffer)]
        inner = [
            (f"{child}.{name}", state)
            for child, layer in self.children()
            for name, state in layer.named_state()
        ]
        return own + inner

    def state(self) -> list[Buffer]:
        """All that is saved, in forward order, each with its unique name within this layer."""
        named = self.named_state()
        for name, state in named:
            state.name = name
        return [state for _, state in named]

    def parameters(self) -> list[Parameter]:
        """The parameters of `state()`."""
        return [state for state in self.state() if isinstance(state, Parameter)]

    def freeze(self) -> Self:
        """Keep all parameters and running statistics as they are from now on; return this layer.

        Gradients still pass through.
        """
        return self._set_trainable(False)

    def unfreeze(self) -> Self:
        """Train the parameters again and return this layer."""
        return self._set_trainable(True)

    def train(self) -> Self:
        """Switch to training mode and return this layer."""
        return self._set_training(True)

    def eval(self) -> Self:
        """Switch to evaluation mode and return this layer."""
        return self._set_training(False)

    def to(self, device: str) -> Self:
        """Move parameters and buffers to "cpu" (NumPy) or "cuda" (CuPy), and return this layer.

        Inputs must then be arrays of that device; `fit`, `evaluate` and `predict` move theirs. What
        is missing for "cuda" is a RuntimeError. Layers forget what they kept for `backward`.
        """
        if device not in ("cpu", "cuda"):
            raise ValueError(f'device must be "cpu" or "cuda", got {device!r}')
        xp = np if device == "cpu" else cuda().xp
        for state in self.state():
            state.data = move(state.data, xp)
            if isinstance(state, Parameter):
                state.grad = move(state.grad, xp)
        for layer in self.walk():
            layer._saved = None
        return self

    def flops(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Multiplications and additions of one forward pass, for layers that are made of them."""
        return 0

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def _given(self, options: dict[str, Any]) -> list[str]:
        """Those of the constructor's `options` that are not at their default, for `extra_repr`."""
        defaults: dict[str, Any] = {}
        for kind in reversed(type(self).__mro__):  # a subclass may hand options on to its base
            if "__init__" in vars(kind):
                parameters = inspect.signature(vars(kind)["__init__"]).parameters
                defaults |= {name: parameter.default for name, parameter in parameters.items()}
        return [f"{name}={value!r}" for name, value in options.items() if value != defaults[name]]

    def _set_training(self, training: bool) -> Self:
        for layer in self.walk():
            layer.training = training
        return self

    def _set_trainable(self, trainable: bool) -> Self:
        for parameter in self.parameters():
            parameter.trainable = trainable
        return self

    def _recall(self) -> Any:
        """What the last training forward pass saved."""
        if self._saved is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward needs a forward pass in training mode first: "
                "call train(), then forward(x)"
            )
        return self._saved

    def _before_activation(self, dy: Array, y: Array) -> Array:
        """The gradient of what went into the activation from that of y, which came out."""
        if self.activation is None or self._grad_is_rectified:
            return dy
        return self._compute(ops.relu_grad, dy, y)

    def _compute(self, op: Callable[..., Any], *args: Any, slot: str = "", **kwargs: Any) -> Array:
        """Call `op`; while `fit` trains, into what it returned last time for these shapes.

        Each step's activations are dead by the next step, and writing a fresh large array costs
        more in page faults than in arithmetic. Two calls of one op in a step need two slots. On
        the CPU they lie channels last, whatever the layout: kernels need not turn them around.
        """
        if self._recycled is None or not self.training:
            fresh: Array = op(*args, **kwargs)
            return fresh
        key = (op, slot, *[getattr(a, "shape", a) for a in args])
        recycled = self._recycled.get(key)
        y: Array = op(*args, out=recycled, **kwargs)
        if recycled is None:
            self._recycled[key] = _channels_last(y) if kwargs.get("layout", "")[:2] == "NC" else y
        return y


def _channels_last(y: Any) -> Any:
    """NumPy arrays (N, C, ...), one or a tuple, as others whose memory has many channels last."""
    if isinstance(y, tuple):
        return tuple(map(_channels_last, y))
    if not isinstance(y, np.ndarray) or y.shape[1] < _MANY_CHANNELS:
        return y
    return np.moveaxis(np.empty_like(np.moveaxis(y, 1, -1), order="C"), -1, 1)


@contextmanager
def evaluating(layer: Layer) -> Iterator[None]:
    """Evaluation mode for `layer` and all inside it; afterwards each is in its mode again."""
    modes = [(inner, inner.training) for inner in layer.walk()]
    layer.eval()
    try:
        yield
    finally:
        for inner, mode in modes:
            inner.training = mode


def move(array: Any, xp: Any) -> Array:
    """The array in the namespace xp (numpy or cupy); itself if it is there already."""
    on_device: bool = hasattr(array, "get")  # a CuPy array: np.asarray refuses to copy it silently
    moved: Array = array.get() if xp is np and on_device else xp.asarray(array)
    return moved


def no_images(layout: Layout, channels: int, extents: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A batch of no images, over which an operator checks its arguments and does nothing else."""
    last = check_layout(layout, len(extents))
    shape = (*extents, channels) if last else (channels, *extents)
    return np.empty((0, *shape), dtype)


def windows(kernel_size: AxisArgument, dilation: AxisArgument, axes: int) -> tuple[int, ...]:
    """The extents of the smallest image that holds one window; wrong ones are the operator's."""
    sizes, steps = per_axis(kernel_size, "kernel_size", axes), per_axis(dilation, "dilation", axes)
    return tuple(max(1, step * (size - 1) + 1) for size, step in zip(sizes, steps, strict=True))
