"""Weights in a safetensors file: nothing in it is ever executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._extras import require
from .layer import Array, move

if TYPE_CHECKING:
    from .sequential import Sequential


def save(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Write the model's parameters, buffers and name to `path`, whole or not at all."""
    numpy_format = require("safetensors.numpy", "train")
    tensors = {s.name: np.ascontiguousarray(move(s.data, np)) for s in model.state()}
    # One key: safetensors writes several in an order that changes from run to run.
    content = numpy_format.save(tensors, {"model": model.name})
    path = Path(path)
    # The same folder, since a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(model: Sequential, path: str | os.PathLike[str]) -> None:
    """Read what `save` wrote in place; on a mismatch raise before anything is written."""
    tensors = _read(Path(path))
    state = {s.name: s.data for s in model.state()}
    faults = [f"{name} is missing" for name in state.keys() - tensors.keys()]
    faults += [f"{name} is not in the model" for name in tensors.keys() - state.keys()]
    for name in state.keys() & tensors.keys():
        found, wanted = _describe(tensors[name]), _describe(state[name])
        if found != wanted:
            faults.append(f"{name} is {found}, the model's {wanted}")
    if faults:
        listed = "; ".join(sorted(faults))
        raise ValueError(f"{path} does not fit this model ({model.name}): {listed}")
    for name, data in state.items():
        data[...] = tensors[name]


def _read(path: Path) -> dict[str, Array]:
    numpy_format = require("safetensors.numpy", "train")
    corrupt = require("safetensors", "train").SafetensorError
    try:
        tensors: dict[str, Array] = numpy_format.load_file(path)
    except corrupt as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    return tensors


def _describe(array: Array) -> str:
    return f"{array.dtype} {array.shape}"
