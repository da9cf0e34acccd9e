"""`fastconv train`: fit a model, keep every complete epoch, draw what was learned."""

from __future__ import annotations

import json
import math
import platform
import signal
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

import numpy as np

import fastconv

from .. import data, models, nn, optim, plots
from .._backend.extras import require
from ..data import cifar
from ..data.datasets import FASHION_MNIST, MNIST, Split, locate
from ..nn.training import Augment, Metrics
from .progress import reporting

DIGITS = tuple("0123456789")
CLOTHES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)

THINGS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

COMPARED = ("mnist_convnet", "mlp")

# By test accuracy after 10 epochs on the sample in batches of 64, cosine schedule.
DEFAULT_LR = {"sgd": 0.05, "rmsprop": 1e-3, "adam": 2e-3, "adamw": 2e-3}

PICTURES_BYTES = 2 << 20  # all pictures of a run together take less


@dataclass(frozen=True)
class Source:
    """A data set of the command: its loader, where it comes from, the names of its classes.

    `augment` is what --augment does to a batch of its images.
    """

    load: Callable[[], Split]
    origin: Callable[[], str]
    classes: tuple[str, ...]
    augment: Augment


_moved = partial(data.augment, shift=2, flip=False)  # a mirrored digit is no digit

SOURCES = {
    "mnist_sample": Source(data.mnist_sample, lambda: "embedded in the package", DIGITS, _moved),
    "mnist": Source(data.mnist, lambda: str(locate(MNIST)), DIGITS, _moved),
    "fashion_mnist": Source(
        data.fashion_mnist, lambda: str(locate(FASHION_MNIST)), CLOTHES, partial(_moved, flip=True)
    ),
    "cifar10": Source(data.cifar10, lambda: str(cifar.locate()), THINGS, data.augment),
}


@dataclass(frozen=True)
class Config:
    """The settings that fix a run's losses, on one build and instruction set, to the last bit."""

    data: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    schedule: str
    seed: int
    augment: bool
    device: str = "cpu"


@dataclass
class Result:
    """A model, the metrics of each complete epoch, and whether Ctrl-C ended the run."""

    model: nn.Sequential
    folder: Path
    rows: list[Metrics] = field(default_factory=list)
    interrupted: bool = False

    @property
    def parameters(self) -> int:
        return sum(p.data.size for p in self.model.parameters())


def run(args: Namespace) -> int:
    """Do the command. Returns its exit status: 0, or 130 after Ctrl-C."""
    for package in ("matplotlib", "safetensors"):
        require(package, "train")  # before the training, not after it
    lr = args.lr or DEFAULT_LR[args.optimizer]
    config = Config(
        args.data,
        args.epochs,
        args.batch_size,
        args.optimizer,
        lr,
        args.schedule,
        args.seed,
        args.augment,
        args.device,
    )
    names = COMPARED if args.compare else (args.model,)
    folder = args.out or Path("runs") / f"{'compare' if args.compare else names[0]}-{args.data}"
    source = SOURCES[args.data]
    print(f"data    {args.data}: {source.origin()}", flush=True)
    split = source.load()
    results: list[Result] = []
    with fastconv.num_threads(args.threads) if args.threads else nullcontext():
        for name in names:
            place = folder / name if args.compare else folder
            results.append(train(name, config, split, place))
            if results[-1].rows:
                draw(results[-1], config, split[1], source.classes)
            if results[-1].interrupted:
                break
    finished = [result for result in results if result.rows]
    if args.compare and finished:
        compare(finished, config, folder)
    return 130 if results[-1].interrupted else 0


def train(name: str, config: Config, split: Split, folder: Path) -> Result:
    """Fit the model called `name`; after every epoch its weights and metrics are in `folder`."""
    model = models.build(name, rng=config.seed)
    result = Result(model, folder)
    (x, y), test = split
    if x.shape[1:] != models.input_shape(name):
        wanted, found = (" x ".join(map(str, s)) for s in (models.input_shape(name), x.shape[1:]))
        raise ValueError(
            f"{name} is for images of {wanted}, but those of {config.data} are {found}"
        )
    _prepare(folder, 2 * sum(s.data.nbytes for s in model.state()) + PICTURES_BYTES)
    print(f"model   {name}: {result.parameters:,} parameters")
    print(
        f"train   {len(x):,} images, test {len(test[0]):,}; batches of {config.batch_size}, "
        f"{config.optimizer}, lr {config.lr:g} {config.schedule}, seed {config.seed}, "
        f"{'augmented, ' if config.augment else ''}"
        f"{'on the GPU' if config.device == 'cuda' else f'threads {fastconv.get_num_threads()}'}"
    )
    model.to(config.device)
    try:
        with reporting(config.epochs) as callbacks:
            model.fit(
                x,
                y,
                epochs=config.epochs,
                batch_size=config.batch_size,
                optimizer=make_optimizer(config, math.ceil(len(x) / config.batch_size)),
                loss=nn.SoftmaxCrossEntropy(),
                validation_data=test,
                seed=config.seed,
                augment=SOURCES[config.data].augment if config.augment else None,
                callbacks=[Checkpoint(result, config), *callbacks],
            )
    except KeyboardInterrupt:
        result.interrupted = True
        if not result.rows:
            print("interrupted before the first epoch was complete: nothing kept")
            return result
        print(f"interrupted: epoch {len(result.rows)} is kept")
        model.load(folder / "model.safetensors")
    model.to("cpu")  # for the pictures
    return result


def make_optimizer(config: Config, steps_per_epoch: int) -> optim.Optimizer:
    """The optimizer with its schedule; "step" divides the rate by 10 after each third."""
    steps = config.epochs * steps_per_epoch
    schedules: dict[str, optim.LearningRate] = {
        "constant": config.lr,
        "step": optim.StepDecay(config.lr, math.ceil(steps / 3)),
        "cosine": optim.Cosine(config.lr, steps),
    }
    kinds: dict[str, Callable[[optim.LearningRate], optim.Optimizer]] = {
        "sgd": lambda lr: optim.SGD(lr, momentum=0.9, nesterov=True),
        "rmsprop": optim.RMSprop,
        "adam": optim.Adam,
        "adamw": optim.AdamW,
    }
    return kinds[config.optimizer](schedules[config.schedule])


class Checkpoint(nn.Callback):
    """After each epoch writes model.safetensors and metrics.json, each whole or not at all."""

    def __init__(self, result: Result, config: Config) -> None:
        self.result = result
        self.config = config

    def on_epoch_end(self, epoch: int, metrics: Metrics) -> None:
        result = self.result
        with _uninterrupted():  # so that both files are of one epoch
            path = result.folder / "model.safetensors"
            with _naming(path):
                result.model.save(path)
            result.rows.append(dict(metrics))
            content = {
                "model": {"name": result.model.name, "parameters": result.parameters},
                "config": asdict(self.config),
                "threads": fastconv.get_num_threads(),
                "versions": {
                    "fastconv": fastconv.__version__,
                    "numpy": np.__version__,
                    "python": platform.python_version(),
                },
                "epochs": result.rows,
            }
            _write(result.folder / "metrics.json", json.dumps(content, indent=2) + "\n")


def draw(
    result: Result, config: Config, test: tuple[np.ndarray, np.ndarray], classes: Sequence[str]
) -> None:
    """The five pictures of one trained model; a dense net has no feature maps."""
    (x, y), model, what = test, result.model, f"{result.model.name} on {config.data}"
    probabilities = nn.Softmax().eval().forward(model.predict(x))
    names = ["learning_curve", "filters", "confusion_matrix", "misclassified", "feature_maps"]
    curve, filters, matrix, mistakes, maps = (result.folder / f"{name}.png" for name in names)
    plots.learning_curve(result.rows, curve, what)
    plots.confusion_matrix(y, probabilities.argmax(axis=1), matrix, names=classes, title=what)
    title = f"Mistakes, {what}"
    plots.misclassified(x, y, probabilities, mistakes, names=classes, title=title)
    weight = next(p.data for p in model.parameters() if p.data.ndim > 1)
    if weight.ndim == 4:
        plots.filters(weight, filters, f"First-layer filters, {what}")
        title = f"Feature maps, {what}: {classes[y[0]]}"
        plots.feature_maps(model, data.to_float(x[0]), maps, title)
    else:
        names.remove("feature_maps")
        images = weight[:32].reshape(-1, *x.shape[1:])
        plots.filters(images, filters, f"First-layer weights, {what}")
    seconds = sum(row["seconds"] for row in result.rows)
    accuracy = result.rows[-1]["val_accuracy"]
    print(f"result  test accuracy {accuracy:.2%} after {seconds:.1f} s of training")
    pictures = ", ".join(f"{name}.png" for name in names)
    print(f"files   {result.folder}: model.safetensors, metrics.json, {pictures}", flush=True)


def compare(results: Sequence[Result], config: Config, folder: Path) -> None:
    """A table of the models and comparison.png."""
    print(f"\n{'model':<14} {'parameters':>10} {'test accuracy':>13} {'seconds/epoch':>13}")
    for r in results:
        seconds = sum(row["seconds"] for row in r.rows) / len(r.rows)
        accuracy = r.rows[-1]["val_accuracy"]
        print(f"{r.model.name:<14} {r.parameters:>10,} {accuracy:>13.2%} {seconds:>13.2f}")
    runs = [plots.Run(r.model.name, r.parameters, r.rows) for r in results]
    plots.comparison(runs, folder / "comparison.png", f"The same training on {config.data}")
    print(f"files   {folder / 'comparison.png'}")


def _prepare(folder: Path, size: int) -> None:
    """Make the folder, and find out now rather than after an epoch whether `size` bytes fit."""
    folder.mkdir(parents=True, exist_ok=True)
    with _naming(folder), tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(size))
        probe.flush()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with _naming(path):
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give an OSError of the block the path; a failed write, on a full disk, names none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done."""
    pressed = False

    def remember(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pressed:
        signal.raise_signal(signal.SIGINT)
