"""Write docs/mistakes.md from real calls: `python tools/make_mistakes.py`.

Each mistake is run and must be refused; its mended form is run and must not be.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "mistakes.md"

SETTING = """\
import numpy as np
import fastconv
from fastconv import nn

rng = np.random.default_rng(0)
x = rng.standard_normal((8, 3, 32, 30), np.float32)  # N, C, H, W
w = rng.standard_normal((16, 3, 5, 3), np.float32)  # K, C/groups, R, S
dy = fastconv.conv2d(x, w, stride=2)
"""

HEAD = f"""\
# Twenty typical mistakes

What fastconv says to each, and the call that was meant. `tools/make_mistakes.py` writes this page
from real calls, and a test holds it against them. All begin with

```python
{SETTING}```
"""


@dataclass(frozen=True)
class Mistake:
    """What went wrong in words, the call, and the call that was meant."""

    title: str
    wrong: str
    right: str


MISTAKES = (
    Mistake(
        "An image without a batch axis", "fastconv.conv2d(x[0], w)", "fastconv.conv2d(x[:1], w)"
    ),
    Mistake(
        "Channels last, but not said",
        "fastconv.conv2d(x.transpose(0, 2, 3, 1), w)",
        'fastconv.conv2d(x.transpose(0, 2, 3, 1), w, layout="NHWC")',
    ),
    Mistake(
        "A filter in Keras's order (R, S, C, K)",
        "w_keras = np.ones((5, 4, 3, 16), np.float32)\nfastconv.conv2d(x, w_keras)",
        "w_keras = np.ones((5, 4, 3, 16), np.float32)\n"
        "fastconv.conv2d(x, w_keras.transpose(3, 2, 0, 1))",
    ),
    Mistake(
        "NumPy's float64 beside float32",
        "fastconv.conv2d(x, np.ones((16, 3, 5, 3)))",
        "fastconv.conv2d(x, np.ones((16, 3, 5, 3), np.float32))",
    ),
    Mistake(
        "Pixels as they come from a file",
        "pixels = np.zeros((8, 3, 32, 30), np.uint8)\nfastconv.conv2d(pixels, w)",
        "pixels = np.zeros((8, 3, 32, 30), np.uint8)\n"
        "fastconv.conv2d(pixels.astype(np.float32) / 255, w)",
    ),
    Mistake(
        "A list",
        "fastconv.conv2d_grad_bias([[[[1.0, 2.0]]]])",
        "fastconv.conv2d_grad_bias(np.array([[[[1.0, 2.0]]]]))",
    ),
    Mistake(
        "Big-endian data",
        'fastconv.max_pool2d(x.astype(">f4"), 2)',
        'x_big = x.astype(">f4")\n'
        'fastconv.max_pool2d(x_big.astype(x_big.dtype.newbyteorder("=")), 2)',
    ),
    Mistake(
        "Four pads in a row, as ONNX has them",
        "fastconv.conv2d(x, w, padding=[2, 1, 2, 1])",
        "fastconv.conv2d(x, w, padding=((2, 2), (1, 1)))",
    ),
    Mistake(
        "TensorFlow's spelling",
        'fastconv.conv2d(x, w, padding="SAME")',
        'fastconv.conv2d(x, w, padding="same")',
    ),
    Mistake(
        "A division that gives a float",
        "fastconv.conv2d(x, w, stride=4 / 2)",
        "fastconv.conv2d(x, w, stride=4 // 2)",
    ),
    Mistake(
        "A filter larger than the image",
        "fastconv.conv2d(x[:, :, :4], w)",
        "fastconv.conv2d(x[:, :, :4], w, padding=(2, 1))",
    ),
    Mistake(
        "A depthwise filter without groups",
        "fastconv.conv2d(x, np.ones((3, 1, 5, 3), np.float32))",
        "fastconv.conv2d(x, np.ones((3, 1, 5, 3), np.float32), groups=3)",
    ),
    Mistake(
        "A bias shaped to be broadcast",
        "fastconv.conv2d(x, w, np.zeros((1, 16, 1, 1), np.float32))",
        "fastconv.conv2d(x, w, np.zeros(16, np.float32))",
    ),
    Mistake(
        "Writing into the input",
        "fastconv.avg_pool2d(x, 3, stride=1, padding=1, out=x)",
        "fastconv.avg_pool2d(x, 3, stride=1, padding=1, out=np.empty_like(x))",
    ),
    Mistake(
        "An output of NumPy's default type",
        "fastconv.max_pool2d(x, 2, out=np.empty((8, 3, 16, 15)))",
        "fastconv.max_pool2d(x, 2, out=np.empty((8, 3, 16, 15), np.float32))",
    ),
    Mistake(
        "A gradient without the stride of its forward call",
        "fastconv.conv2d_grad_input(dy, w, x.shape)",
        "fastconv.conv2d_grad_input(dy, w, x.shape, stride=2)",
    ),
    Mistake(
        "An algorithm that cannot do it",
        'fastconv.conv2d(x, w, algorithm="winograd")',
        "fastconv.conv2d(x, w)",
    ),
    Mistake(
        "Too much padding for a maximum",
        "fastconv.max_pool2d(x, 3, padding=2)",
        "fastconv.max_pool2d(x, 3, padding=1)",
    ),
    Mistake(
        "More output padding than a stride",
        "fastconv.conv_transpose2d(dy, w, stride=2, output_padding=2)",
        "fastconv.conv_transpose2d(dy, w, stride=2, output_padding=1)",
    ),
    Mistake(
        "A network without Flatten",
        "model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4 * 30 * 28, 10))\nmodel.forward(x)",
        "model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 28, 10))\n"
        "model.forward(x)",
    ),
)


def refusal(code: str, names: dict[str, Any]) -> str:
    """What the call raises, as the last line of a traceback has it."""
    try:
        exec(code, names)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"not refused: {code}")


def page() -> str:
    """The whole page, from calls made now."""
    names: dict[str, Any] = {}
    exec(SETTING, names)
    parts = [HEAD]
    for number, mistake in enumerate(MISTAKES, 1):
        said = refusal(mistake.wrong, dict(names))
        exec(mistake.right, dict(names))
        parts.append(
            f"\n## {number}. {mistake.title}\n\n```python\n{mistake.wrong}\n```\n\n"
            f"```text\n{said}\n```\n\nMeant was\n\n```python\n{mistake.right}\n```\n"
        )
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
