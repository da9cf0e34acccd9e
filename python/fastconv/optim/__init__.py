"""Optimizers over one flat buffer, and learning-rate schedules."""

from .optimizers import SGD, Adam, AdamW, LearningRate, Optimizer, RMSprop
from .schedules import Cosine, OneCycle, StepDecay

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Cosine",
    "LearningRate",
    "OneCycle",
    "Optimizer",
    "RMSprop",
    "StepDecay",
]
