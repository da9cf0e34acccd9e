"""`fastconv train`: what it prints, writes and returns, and what it keeps when it is stopped."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv import data, optim
from fastconv.commands import main as cli
from fastconv.commands import predict, train

FILES = {
    "confusion_matrix.png",
    "feature_maps.png",
    "filters.png",
    "learning_curve.png",
    "metrics.json",
    "misclassified.png",
    "model.safetensors",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and a hundredth of the usual training images so that runs are quick."""
    (x, y), (x_test, y_test) = data.mnist_sample()
    small = (x[:320], y[:320]), (x_test[:150], y_test[:150])
    source = replace(train.SOURCES["mnist_sample"], load=lambda: small)
    monkeypatch.setitem(train.SOURCES, "mnist_sample", source)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at other things: pictures take longer than all the training."""
    monkeypatch.setattr(train, "draw", lambda *args: None)


def metrics(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path / "metrics.json").read_text())
    return content


def table(output: str) -> list[list[str]]:
    """The words of each epoch's line."""
    return [line.split() for line in output.splitlines() if re.match(r" +\d+ +\d", line)]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.startswith("fastconv: error: ")
    return text


def test_train_writes_what_it_prints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--epochs", "3", "--batch-size", "50"]) == 0
    output = capsys.readouterr().out
    out = folder / "runs" / "mnist_convnet-mnist_sample"
    assert {path.name for path in out.iterdir()} == FILES
    assert "mnist_sample: embedded in the package" in output
    assert "93,322 parameters" in output
    rows, kept = table(output), metrics(out)
    assert kept["model"] == {"name": "mnist_convnet", "parameters": 93322}
    assert kept["config"]["batch_size"] == 50
    assert [row[0] for row in rows] == ["1", "2", "3"]
    for row, epoch in zip(rows, kept["epochs"], strict=True):
        assert row[1] == f"{epoch['loss']:.9g}"
        assert row[3] == f"{epoch['val_loss']:.9g}"
        assert row[4] == f"{epoch['val_accuracy']:.2%}"
    assert kept["epochs"][2]["loss"] < kept["epochs"][0]["loss"]
    assert max(map(len, output.splitlines()[3:7])) <= 80


@pytest.mark.usefixtures("no_pictures")
def test_the_losses_do_not_depend_on_threads(folder: Path) -> None:
    for threads in ("1", "2"):
        assert cli.main(["train", "--epochs", "2", "--threads", threads, "--out", threads]) == 0
    one, two = metrics(folder / "1"), metrics(folder / "2")
    for first, second in zip(one["epochs"], two["epochs"], strict=True):
        assert first["loss"] == second["loss"]
        assert first["val_loss"] == second["val_loss"]
    weights = [predict.load_model(folder / n / "model.safetensors").parameters() for n in "12"]
    for a, b in zip(*weights, strict=True):
        assert a.data.tobytes() == b.data.tobytes(), a.name
    assert (one["threads"], two["threads"]) == (1, 2)


def test_a_dense_net_has_no_feature_maps(folder: Path) -> None:
    assert cli.main(["train", "--model", "mlp", "--epochs", "1"]) == 0
    out = folder / "runs" / "mlp-mnist_sample"
    assert {path.name for path in out.iterdir()} == FILES - {"feature_maps.png"}


def test_photographs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 3, 32, 32), np.uint8), np.arange(40) % 10
    source = replace(train.SOURCES["cifar10"], load=lambda: ((x, y), (x, y)), origin=str)
    monkeypatch.setitem(train.SOURCES, "cifar10", source)
    options = ("--model", "resnet20", "--data", "cifar10", "--batch-size", "20", "--epochs", "1")
    assert cli.main(["train", *options, "--augment"]) == 0
    out = folder / "runs" / "resnet20-cifar10"
    assert {path.name for path in out.iterdir()} == FILES
    augmented = metrics(out)
    assert augmented["config"]["augment"] is True
    assert cli.main(["train", *options, "--out", "plain"]) == 0
    assert metrics(folder / "plain")["epochs"][0]["loss"] != augmented["epochs"][0]["loss"]
    model = predict.load_model(out / "model.safetensors")
    accuracy = model.evaluate(x, y)["accuracy"]
    assert accuracy == augmented["epochs"][0]["val_accuracy"]


@pytest.mark.parametrize(
    ("model", "data", "wanted", "found"),
    [
        ("resnet20", "mnist_sample", "3 x 32 x 32", "1 x 28 x 28"),
        ("lenet5", "cifar10", "1 x 28 x 28", "3 x 32 x 32"),
    ],
)
def test_a_model_for_other_images_is_refused(
    *,
    model: str,
    data: str,
    wanted: str,
    found: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, y = np.zeros((10, 3, 32, 32), np.uint8), np.arange(10)
    source = replace(train.SOURCES["cifar10"], load=lambda: ((x, y), (x, y)), origin=str)
    monkeypatch.setitem(train.SOURCES, "cifar10", source)
    assert cli.main(["train", "--model", model, "--data", data]) == 1
    message = f"{model} is for images of {wanted}, but those of {data} are {found}"
    assert message in error_line(capsys)
    assert not (folder / "runs").exists()


@pytest.mark.usefixtures("no_pictures")
def test_the_seed_changes_the_run(folder: Path) -> None:
    for seed in ("0", "1"):
        args = ["train", "--model", "mlp", "--epochs", "1", "--seed", seed, "--out", seed]
        assert cli.main(args) == 0
    first, second = (metrics(folder / seed)["epochs"][0] for seed in "01")
    assert first["loss"] != second["loss"]


@pytest.mark.usefixtures("no_pictures")
def test_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--compare", "--epochs", "1"]) == 0
    output = capsys.readouterr().out
    out = folder / "runs" / "compare-mnist_sample"
    assert {path.name for path in out.iterdir()} == {"mnist_convnet", "mlp", "comparison.png"}
    for name, parameters in (("mnist_convnet", "93,322"), ("mlp", "407,050")):
        accuracy = metrics(out / name)["epochs"][0]["val_accuracy"]
        assert re.search(rf"^{name} +{parameters} +{accuracy:.2%} +[\d.]+$", output, re.MULTILINE)


@pytest.mark.parametrize(
    ("schedule", "first", "middle", "last"),
    [("constant", 0.3, 0.3, 0.3), ("step", 0.3, 0.03, 0.003), ("cosine", 0.3, 0.15, 0.0)],
)
@pytest.mark.parametrize("optimizer", cli.OPTIMIZERS)
def test_schedules(schedule: str, first: float, middle: float, last: float, optimizer: str) -> None:
    config = train.Config("mnist_sample", 6, 64, optimizer, 0.3, schedule, 0, False)
    made = train.make_optimizer(config, steps_per_epoch=100)
    assert type(made).__name__.lower() == optimizer
    assert callable(made.lr) == (schedule != "constant")
    rates = []
    for step in (0, 300, 599):
        made.steps = step
        rates.append(made.current_lr)
    assert rates == pytest.approx([first, middle, last], abs=1e-5)


def test_an_unusable_folder_is_found_out_before_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").write_text("")
    assert cli.main(["train", "--out", "file/run"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "fastconv: error: file/run: Not a directory\n"
    assert "epoch" not in captured.out


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Sets the size from which a file cannot grow; what a full disk does, but anywhere."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_found_out_before_training(
    folder: Path, capsys: pytest.CaptureFixture[str], file_size_limit: Callable[[int], None]
) -> None:
    file_size_limit(1_000_000)
    assert cli.main(["train", "--out", "run"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "fastconv: error: run: File too large\n"
    assert "epoch" not in captured.out
    assert list((folder / "run").iterdir()) == []


def test_a_disk_that_fills_up_keeps_the_epoch_before(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    file_size_limit: Callable[[int], None],
) -> None:
    written = train.Checkpoint.on_epoch_end

    def fill_up(self: train.Checkpoint, epoch: int, row: dict[str, float]) -> None:
        if epoch == 2:
            file_size_limit(100_000)
        written(self, epoch, row)

    monkeypatch.setattr(train.Checkpoint, "on_epoch_end", fill_up)
    assert cli.main(["train", "--epochs", "4", "--out", "run"]) == 1
    assert error_line(capsys) == "fastconv: error: run/model.safetensors: File too large\n"
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        "metrics.json",
        "model.safetensors",
    ]
    assert len(metrics(folder / "run")["epochs"]) == 2
    predict.load_model(folder / "run" / "model.safetensors")


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_the_last_complete_epoch(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastconv", "train", "--model", "mlp", "--epochs", "9999"]
    with subprocess.Popen(
        [*command, "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("    2 "):
                process.send_signal(signal.SIGINT)
                break
        output, errors = process.communicate(timeout=300)  # a busy machine draws slowly
    assert process.returncode == 130
    assert errors == ""
    epochs = len(metrics(tmp_path / "run")["epochs"])
    assert epochs >= 2
    assert f"interrupted: epoch {epochs} is kept" in output
    assert (tmp_path / "run" / "learning_curve.png").exists()
    kept = metrics(tmp_path / "run")["epochs"][-1]
    model = predict.load_model(tmp_path / "run" / "model.safetensors")
    assert model.evaluate(*data.mnist_sample()[1])["loss"] == kept["val_loss"]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_the_first_epoch_keeps_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(self: optim.Optimizer, parameters: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(optim.RMSprop, "step", press)
    assert cli.main(["train", "--out", "run"]) == 130
    assert "nothing kept" in capsys.readouterr().out
    assert list((folder / "run").iterdir()) == []


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_waits_until_both_files_are_written() -> None:
    done = []

    def write_two_files() -> None:
        with train._uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("both")

    with pytest.raises(KeyboardInterrupt):
        write_two_files()
    assert done == ["both"]


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fastconv", "train", "--model", "mlp", "--epochs", "2"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=tmp_path, stdout=theirs, env=environment) as process:
        os.close(theirs)
        output = b""
        try:
            while chunk := os.read(ours, 65536):
                output += chunk
        except OSError:  # how Linux says that the other end was closed
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())
    assert re.search(r"epoch 2/2 .* \d+/63 loss [\d.]+ +accuracy [\d.]+% +[\d,]+ images/s", text)
    assert len(re.findall(r"[\r\n] +[12] +[\d.]+ +[\d.]+% ", text)) == 2
