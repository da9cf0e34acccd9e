"""Learning-rate schedules: functions of the step index, which the optimizer counts from 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._checks import check


@dataclass(frozen=True)
class StepDecay:
    """lr * gamma**(step // step_size)."""

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check("step_size", self.step_size, self.step_size >= 1, "a number of steps >= 1")

    def __call__(self, step: int) -> float:
        return self.lr * self.gamma ** (step // self.step_size)


@dataclass(frozen=True)
class Cosine:
    """A linear rise to lr over warmup_steps, then half a cosine to final_lr at total_steps.

    Loshchilov, Hutter: SGDR, 2017, arXiv 1608.03983, without restarts.
    """

    lr: float
    total_steps: int
    warmup_steps: int = 0
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        warmup, total = self.warmup_steps, self.total_steps
        check("warmup_steps", warmup, 0 <= warmup < total, f"a number in [0, {total=})")

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        span = self.total_steps - self.warmup_steps
        return _half_cosine(self.lr, self.final_lr, (step - self.warmup_steps) / span)


@dataclass(frozen=True)
class OneCycle:
    """Half a cosine up to max_lr over the first pct_start of the steps, half a cosine down.

    It starts at max_lr / div_factor and ends, at the last step, at that / final_div_factor. The
    momentum is left alone. Smith, Topin: Super-convergence, 2018, arXiv 1708.07120.
    """

    max_lr: float
    total_steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        check("pct_start", self.pct_start, 0 < self.pct_start < 1, "a number in (0, 1)")
        peak = self.pct_start * self.total_steps - 1
        check("total_steps", self.total_steps, peak > 0, "enough that the rise has a step")

    def __call__(self, step: int) -> float:
        start = self.max_lr / self.div_factor
        peak = self.pct_start * self.total_steps - 1
        if step <= peak:
            return _half_cosine(start, self.max_lr, step / peak)
        fall = (step - peak) / (self.total_steps - 1 - peak)
        return _half_cosine(self.max_lr, start / self.final_div_factor, fall)


def _half_cosine(start: float, end: float, progress: float) -> float:
    """From start at progress 0 to end at 1 and after."""
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
