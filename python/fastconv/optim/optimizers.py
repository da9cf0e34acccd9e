"""Optimizers over one flat buffer.

At its first step an optimizer moves all parameters of a dtype into one flat array, and their
gradients into another; each `Parameter.data` and `.grad` becomes a view. An update is then a few
in-place vector operations over blocks that stay in cache. Rules and defaults are PyTorch's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .._backend.dispatch import namespace
from .._checks import check
from ..nn.layer import Array, Parameter, move

LearningRate: TypeAlias = float | Callable[[int], float]

BLOCK = 32768  # elements: data, gradient, two states and two scratch arrays fit a core's L2


@dataclass(slots=True)
class _Block:
    """Views of one run of parameters: everything an update reads and writes."""

    data: Array
    grad: Array
    state: list[Array]
    scratch: list[Array]


class Optimizer(ABC):
    """Base of all optimizers. `lr` is a number, or a function of the step index from 0.

    Weight decay is L2: weight_decay * data is added to the gradient.
    """

    state_arrays: int = 0  # running averages per parameter

    def __init__(self, lr: LearningRate, *, weight_decay: float = 0.0) -> None:
        if not callable(lr):
            check("lr", lr, lr >= 0, "a number >= 0")
        check("weight_decay", weight_decay, weight_decay >= 0, "a number >= 0")
        self.lr = lr
        self.weight_decay = weight_decay
        self.steps = 0
        self._packed: list[tuple[Parameter, tuple[int, ...], np.dtype[np.generic]]] = []
        self._views: list[tuple[Array, Array]] = []
        self._state: dict[np.dtype[np.generic], list[Array]] = {}
        self._blocks: list[_Block] = []

    @property
    def current_lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.lr(self.steps) if callable(self.lr) else self.lr)

    def step(self, parameters: Sequence[Parameter]) -> None:
        """Update the parameters that are trainable in place from their gradients."""
        self._pack([p for p in parameters if p.trainable])
        lr = self.current_lr
        self.steps += 1
        for block in self._blocks:
            self._update(block, lr)

    @abstractmethod
    def _update(self, block: _Block, lr: float) -> None:
        """Update block.data and block.state in place; leave block.grad as it is."""

    def _decayed(self, block: _Block) -> Array:
        """The gradient with weight decay: block.grad itself or scratch[0]."""
        if self.weight_decay == 0:
            return block.grad
        g = np.multiply(block.data, self.weight_decay, out=block.scratch[0])
        g += block.grad
        return g

    def _pack(self, parameters: Sequence[Parameter]) -> None:
        """Make the parameters views of flat arrays, unless they are these views already."""
        if len(parameters) == len(self._views) and all(
            p.data is data and p.grad is grad
            for p, (data, grad) in zip(parameters, self._views, strict=True)
        ):
            return
        packed = [(p, p.data.shape, p.data.dtype) for p in parameters]
        if self._packed and packed != self._packed:
            raise ValueError("parameters are not those of the first step; make a new optimizer")
        self._packed = packed
        self._blocks = []
        for dtype in dict.fromkeys(dtype for *_, dtype in packed):
            self._pack_dtype([p for p in parameters if p.data.dtype == dtype], dtype)
        self._views = [(p.data, p.grad) for p in parameters]

    def _pack_dtype(self, parameters: Sequence[Parameter], dtype: np.dtype[np.generic]) -> None:
        xp = namespace(parameters[0].data)
        data = xp.concatenate([p.data.ravel() for p in parameters])
        grad = xp.concatenate([p.grad.ravel() for p in parameters])
        start = 0
        for p in parameters:
            stop = start + p.data.size
            shape = p.data.shape
            p.data, p.grad = data[start:stop].reshape(shape), grad[start:stop].reshape(shape)
            start = stop
        # Packing again, since a parameter was re-pointed (moved to a device), keeps the averages.
        fresh = [xp.zeros_like(data) for _ in range(self.state_arrays)]
        state = [move(array, xp) for array in self._state.get(dtype, fresh)]
        self._state[dtype] = state
        block = BLOCK if xp is np else max(data.size, 1)  # a GPU wants few, long operations
        scratch = [xp.empty(min(block, data.size), dtype) for _ in range(2)]
        for start in range(0, data.size, block):
            part = slice(start, min(start + block, data.size))
            size = part.stop - part.start
            views = [[a[part] for a in state], [a[:size] for a in scratch]]
            self._blocks.append(_Block(data[part], grad[part], *views))


class SGD(Optimizer):
    """Stochastic gradient descent.

    With momentum: v = momentum v + g, data -= lr v, or with nesterov lr (g + momentum v).
    Sutskever et al.: On the importance of initialization and momentum in deep learning, 2013.
    """

    def __init__(
        self,
        lr: LearningRate,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay=weight_decay)
        check("momentum", momentum, 0 <= momentum < 1, "a number in [0, 1)")
        if nesterov and momentum == 0:
            raise ValueError("nesterov=True needs a momentum > 0, such as 0.9")
        self.momentum = momentum
        self.nesterov = nesterov
        self.state_arrays = 1 if momentum else 0

    def _update(self, block: _Block, lr: float) -> None:
        g = self._decayed(block)
        step = block.scratch[1]
        if self.momentum:
            (v,) = block.state
            v *= self.momentum
            v += g
            if self.nesterov:
                np.multiply(v, self.momentum, out=step)
                step += g
                g = step
            else:
                g = v
        np.multiply(g, lr, out=step)
        block.data -= step


class RMSprop(Optimizer):
    """v = alpha v + (1 - alpha) g², data -= lr g / (sqrt(v) + eps).

    Tieleman, Hinton: lecture 6.5 of Neural Networks for Machine Learning, 2012.
    """

    state_arrays = 1

    def __init__(
        self,
        lr: LearningRate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay=weight_decay)
        check("alpha", alpha, 0 <= alpha < 1, "a number in [0, 1)")
        check("eps", eps, eps > 0, "a number > 0")
        self.alpha = alpha
        self.eps = eps

    def _update(self, block: _Block, lr: float) -> None:
        g = self._decayed(block)
        (v,) = block.state
        step = block.scratch[1]
        _average_square(v, g, self.alpha, step)
        np.sqrt(v, out=step)
        step += self.eps
        np.divide(g, step, out=step)
        step *= lr
        block.data -= step


class Adam(Optimizer):
    """Bias-corrected running averages m of g and v of g²: data -= lr m / (sqrt(v) + eps).

    Kingma, Ba: Adam, a method for stochastic optimization, 2015, arXiv 1412.6980.
    """

    state_arrays = 2

    def __init__(
        self,
        lr: LearningRate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay=weight_decay)
        for beta in betas:
            check("betas", beta, 0 <= beta < 1, "numbers in [0, 1)")
        check("eps", eps, eps > 0, "a number > 0")
        self.betas = betas
        self.eps = eps

    def _update(self, block: _Block, lr: float) -> None:
        self._update_with(self._decayed(block), block, lr)

    def _update_with(self, g: Array, block: _Block, lr: float) -> None:
        m, v = block.state
        step = block.scratch[1]
        beta1, beta2 = self.betas
        m *= beta1
        m += np.multiply(g, 1 - beta1, out=step)
        _average_square(v, g, beta2, step)
        np.sqrt(v, out=step)
        step /= math.sqrt(1 - beta2**self.steps)
        step += self.eps
        np.divide(m, step, out=step)
        step *= lr / (1 - beta1**self.steps)
        block.data -= step


class AdamW(Adam):
    """Adam with decoupled weight decay: data *= 1 - lr weight_decay before the update.

    Loshchilov, Hutter: Decoupled weight decay regularization, 2019, arXiv 1711.05101.
    """

    def __init__(
        self,
        lr: LearningRate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay)

    def _update(self, block: _Block, lr: float) -> None:
        block.data *= 1 - lr * self.weight_decay
        self._update_with(block.grad, block, lr)


def _average_square(v: Array, g: Array, decay: float, scratch: Array) -> None:
    """v = decay v + (1 - decay) g² in place."""
    np.multiply(g, g, out=scratch)
    scratch *= 1 - decay
    v *= decay
    v += scratch
