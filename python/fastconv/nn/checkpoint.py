"""Weights in a safetensors file: nothing in it is ever executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .._backend.dispatch import namespace
from .._backend.extras import require
from .layer import Array, move
from .training import Trainable

DTYPES = {"F32": "float32", "F64": "float64"}  # those of parameters


def save(model: Trainable, path: str | os.PathLike[str]) -> None:
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


def load(model: Trainable, path: str | os.PathLike[str]) -> None:
    """Read what `save` wrote in place; on a mismatch raise before anything is written."""
    safetensors = require("safetensors", "train")
    state = {s.name: s.data for s in model.state()}
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names: list[str] = file.keys()
            found = {name: _describe(file.get_slice(name)) for name in names}
            _check_fit(model, path, state, found)
            for name, data in state.items():
                data[...] = move(file.get_tensor(name), namespace(data))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error


def _check_fit(
    model: Trainable, path: str | os.PathLike[str], state: dict[str, Array], found: dict[str, str]
) -> None:
    """The file's arrays are the model's: all names, shapes and dtypes, by its header alone."""
    wanted = {name: f"{data.dtype} {data.shape}" for name, data in state.items()}
    faults = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    faults += [f"{name} is not in the model" for name in found.keys() - wanted.keys()]
    faults += [
        f"{name} is {found[name]}, the model's {wanted[name]}"
        for name in wanted.keys() & found.keys()
        if found[name] != wanted[name]
    ]
    if faults:
        listed = "; ".join(sorted(faults))
        raise ValueError(f"{path} does not fit this model ({model.name}): {listed}")


def _describe(tensor: Any) -> str:
    """Dtype and shape of a tensor in a file; a dtype that no model has by the file's own name."""
    dtype = tensor.get_dtype()
    return f"{DTYPES.get(dtype, dtype)} {tuple(tensor.get_shape())}"
