"""The command line: `fastconv train | predict | bench | info`, also `python -m fastconv`."""

from __future__ import annotations

import argparse
import math
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from .console import print_error

# A command imports what it needs when it runs, so that --help is quick.
MODELS = ("mnist_convnet", "mlp", "lenet5", "resnet20")
DATA = ("mnist_sample", "mnist", "fashion_mnist", "cifar10")
OPTIMIZERS = ("sgd", "rmsprop", "adam", "adamw")
SCHEDULES = ("constant", "step", "cosine")
EXPECTED_ERRORS = (ValueError, OSError, RuntimeError, ImportError, ArithmeticError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own).

    Returns the exit status: 0, 1 after an error (one line on standard error), 130 after Ctrl-C.
    Wrong usage raises SystemExit(2), as argparse does.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    args = _parser(words).parse_args(words)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output is gone, as `head` is after ten lines
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except EXPECTED_ERRORS as error:
        print_error(error)
        return 1
    return status


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastconv", description="Train, look at and time convolutional networks."
    )
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train a network, keep it and draw it"))
    _add_predict(commands.add_parser("predict", help="say which digit is in an image file"))
    bench = commands.add_parser("bench", help="time convolution against other libraries")
    if "bench" in words:  # its options come with imports that no other command needs
        _add_bench(bench)
    info = commands.add_parser("info", help="show the build, optional packages and data found")
    info.set_defaults(run=_info)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a network. Each epoch prints a line and replaces model.safetensors and "
        "metrics.json in the output folder; at the end, and after Ctrl-C, pictures are drawn "
        "beside them from the last complete epoch."
    )
    add = parser.add_argument
    add("--data", choices=DATA, default=DATA[0], help="default: %(default)s, in the package")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--model", choices=MODELS, default=MODELS[0], help="default: %(default)s")
    models.add_argument(
        "--compare", action="store_true", help="train a convnet and a dense net, and compare"
    )
    add("--epochs", type=_positive_int, default=10, metavar="N", help="default: %(default)s")
    add("--batch-size", type=_positive_int, default=64, metavar="N", help="default: %(default)s")
    add("--optimizer", choices=OPTIMIZERS, default="rmsprop", help="default: %(default)s")
    add("--lr", type=_positive, metavar="RATE", help="learning rate (default: by optimizer)")
    add("--schedule", choices=SCHEDULES, default="cosine", help="default: %(default)s")
    add("--augment", action="store_true", help="move, and for photographs mirror, the images")
    add("--seed", type=_seed, default=0, help="same seed, same losses (default: %(default)s)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    add("--threads", type=_positive_int, metavar="N", help="default: every core that is allowed")
    add("--out", type=Path, metavar="FOLDER", help="default: runs/MODEL-DATA or runs/compare-DATA")
    parser.set_defaults(run=_train)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say which digit is in each image, with the three likeliest and their probabilities. "
        "The image is made gray, inverted if its ground is light, scaled to 20 x 20 pixels and "
        "centred in 28 x 28, as MNIST's digits were."
    )
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="PNG, JPEG and the like, or .npy"
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("runs", f"{MODELS[0]}-{DATA[0]}", "model.safetensors"),
        metavar="FILE",
        help="what fastconv train wrote (default: %(default)s)",
    )
    parser.set_defaults(run=_predict)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    from . import bench

    bench.add_arguments(parser)
    parser.set_defaults(run=bench.run)


def _train(args: Namespace) -> int:
    from .train import run

    return run(args)


def _predict(args: Namespace) -> int:
    from .predict import run

    return run(args)


def _info(args: Namespace) -> int:
    from .info import run

    return run()


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
