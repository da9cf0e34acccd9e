"""`fastconv predict`: which digit is in an image file."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from .. import models, nn
from .._backend.extras import require
from ..data.image import SIDE, read_digit
from .console import print_error


def run(args: Namespace) -> int:
    """Print a line a file. Returns 1 if any of them could not be read, else 0."""
    model = load_model(args.model)
    if models.input_shape(model.name) != (1, SIDE, SIDE):
        raise ValueError(f"{args.model}: {model.name} is no model of handwritten digits")
    width = max(len(str(path)) for path in args.images)
    failed = False
    for path in args.images:
        try:
            digit = read_digit(path)
        except (OSError, ValueError) as error:
            failed = True
            print_error(error)
            continue
        logits = model.predict(digit[np.newaxis])
        probabilities = nn.Softmax().eval().forward(logits)[0]
        top = np.argsort(-probabilities, kind="stable")[:3]
        likeliest = "   ".join(f"{k} {probabilities[k]:7.2%}" for k in top)
        print(f"{path!s:<{width}}   {likeliest}", flush=True)
    return int(failed)


def load_model(path: Path) -> nn.Sequential:
    """Build the model that a file of `Sequential.save` names, and load its weights.

    Raises OSError if the file cannot be read, ValueError if it is no such file.
    """
    safetensors = require("safetensors", "train")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model; make one with: fastconv train")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a complete safetensors file ({error})") from None
    if metadata.get("model") not in models.NAMES:
        raise ValueError(
            f"{path}: its metadata name the model {metadata.get('model')!r}, expected one of "
            f"{', '.join(models.NAMES)}; fastconv train writes such files"
        )
    model = models.build(metadata["model"])
    model.load(path)
    return model
