"""`fastconv predict`, and how it brings a picture into the form of MNIST's images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fastconv import models, nn
from fastconv.commands import main as cli
from fastconv.data.image import read_digit

Gray = NDArray[np.uint8]


@pytest.fixture
def digit() -> Gray:
    """A bold 7 of 60 x 40, off centre in 120 x 90, white on black."""
    canvas = np.zeros((120, 90), np.uint8)
    canvas[8:20, 5:45] = 255
    for row in range(20, 68):
        left = 33 - (row - 20) // 2
        canvas[row, left : left + 12] = 255
    return canvas


def centre_of_mass(image: Gray) -> tuple[float, float]:
    rows, columns = np.indices(image.shape) + 0.5
    return float(np.average(rows, weights=image)), float(np.average(columns, weights=image))


def save(path: Path, image: Image.Image) -> Gray:
    image.save(path)
    return read_digit(path)


def test_a_digit_is_scaled_and_centred(tmp_path: Path, digit: Gray) -> None:
    read = save(tmp_path / "digit.png", Image.fromarray(digit))
    assert read.shape == (1, 28, 28)
    assert read.dtype == np.uint8
    rows, columns = np.nonzero(read[0] > 40)
    assert int(np.ptp(rows)) + 1 == 20, "the longer side, 60, to 20"
    assert int(np.ptp(columns)) + 1 == 13
    assert centre_of_mass(read[0]) == pytest.approx((14, 14), abs=0.6)
    assert read.max() == 255


def test_any_ground_and_format_reads_the_same(tmp_path: Path, digit: Gray) -> None:
    expected = save(tmp_path / "digit.png", Image.fromarray(digit)).astype(int)
    ink = (digit > 0)[..., np.newaxis]
    clear = np.where(ink, np.array([0, 0, 0, 255]), np.array([90, 90, 90, 0])).astype(np.uint8)
    rotated = Image.fromarray(255 - digit).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    rotated.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    np.save(tmp_path / "digit.npy", digit / 255)
    pictures = {
        "inverted": save(tmp_path / "inverted.png", Image.fromarray(255 - digit)),
        "on gray paper": save(tmp_path / "paper.png", Image.fromarray(200 - digit // 2)),
        "transparent": save(tmp_path / "clear.png", Image.fromarray(clear)),
        "16 bits": save(tmp_path / "deep.png", Image.fromarray(digit.astype(np.uint16) * 257)),
        "palette": save(tmp_path / "palette.gif", Image.fromarray(255 - digit).convert("P")),
        "turned": read_digit(tmp_path / "turned.jpg"),
        "array": read_digit(tmp_path / "digit.npy"),
    }
    for name, read in pictures.items():
        tolerance = 60 if name == "turned" else 2  # JPEG rounds
        assert np.abs(read - expected).max() <= tolerance, name


def test_an_image_like_mnist_is_left_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    image = np.zeros((28, 28), np.uint8)
    image[4:20, 6:22] = rng.integers(0, 256, (16, 16))
    np.testing.assert_array_equal(save(tmp_path / "a.png", Image.fromarray(image))[0], image)
    np.save(tmp_path / "a.npy", image[np.newaxis])
    np.testing.assert_array_equal(read_digit(tmp_path / "a.npy")[0], image)


def test_images_that_hold_no_digit(tmp_path: Path, digit: Gray) -> None:
    path = tmp_path / "image.png"
    with pytest.raises(ValueError, match=r"image.png: no digit in it, the image is blank"):
        save(path, Image.new("L", (50, 60), 255))
    Image.fromarray(digit).save(path)
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(ValueError, match=r"image.png: not a readable image"):
        read_digit(path)
    path.write_text("not an image")
    with pytest.raises(ValueError, match=r"image.png: not a readable image"):
        read_digit(path)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((3, 4, 5), np.uint8), r"array of shape \(3, 4, 5\), expected \(H, W\)"),
        (np.zeros((0, 5), np.uint8), r"array of shape \(0, 5\)"),
        (np.zeros((4, 5), np.int64), "array of int64, expected uint8 or"),
        (np.full((4, 5), 1.5), r"array of float64, .* within \[0, 1\]"),
        (np.full((4, 5), np.nan), r"array of float64, .* within \[0, 1\]"),
        (np.array([[{}]]), "not a readable .npy file"),
    ],
)
def test_arrays_that_are_no_image(tmp_path: Path, array: NDArray[np.generic], problem: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=f"a.npy: {problem}"):
        read_digit(tmp_path / "a.npy")


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A dense net that answers 7, whatever the image."""
    model = models.build("mlp", rng=0)
    model.parameters()[-1].data[7] = 100
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.startswith("fastconv: error: ")
    return text


def test_predict(
    tmp_path: Path, model_file: Path, digit: Gray, capsys: pytest.CaptureFixture[str]
) -> None:
    image, array = tmp_path / "digit.png", tmp_path / "digit.npy"
    Image.fromarray(255 - digit).save(image)
    np.save(array, digit)
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:60])
    files = [tmp_path / "missing.png", image, tmp_path / "broken.png", array]
    args = ["predict", *map(str, files), "--model", str(model_file)]
    assert cli.main(args) == 1, "two of the files could not be read"
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        [str(image), "7", "100.00%"],
        [str(array), "7", "100.00%"],
    ]
    missing, broken = captured.err.splitlines()
    assert missing == f"fastconv: error: {tmp_path}/missing.png: No such file or directory"
    assert broken.startswith(f"fastconv: error: {tmp_path}/broken.png: not a readable image")
    assert cli.main(["predict", str(image), "--model", str(model_file)]) == 0


def test_predict_without_a_usable_model(
    tmp_path: Path, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["predict", "x.png", "--model", str(tmp_path / "none")]) == 1
    assert "none: no such model; make one with: fastconv train" in error_line(capsys)
    model_file.write_bytes(model_file.read_bytes()[:1000])
    assert cli.main(["predict", "x.png", "--model", str(model_file)]) == 1
    assert "model.safetensors: not a complete safetensors file" in error_line(capsys)
    other = nn.Sequential(nn.Linear(3, 2), name="other")
    other.save(model_file)
    assert cli.main(["predict", "x.png", "--model", str(model_file)]) == 1
    assert "its metadata name the model 'other', expected one of" in error_line(capsys)
