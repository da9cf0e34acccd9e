"""One training step of each named model beside the same network written in PyTorch's layers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastconv import models, nn, optim

torch: Any = pytest.importorskip("torch", reason="PyTorch is a second oracle, and optional")
T = torch.nn


def mnist_convnet() -> Any:
    return T.Sequential(
        *(T.Conv2d(1, 32, 3), T.ReLU(), T.MaxPool2d(2)),
        *(T.Conv2d(32, 64, 3), T.ReLU(), T.MaxPool2d(2)),
        *(T.Conv2d(64, 64, 3), T.ReLU(), T.Flatten()),
        *(T.Linear(576, 64), T.ReLU(), T.Linear(64, 10)),
    )


def mlp() -> Any:
    return T.Sequential(T.Flatten(), T.Linear(784, 512), T.ReLU(), T.Linear(512, 10))


def lenet5() -> Any:
    return T.Sequential(
        *(T.Conv2d(1, 6, 5, padding=2), T.ReLU(), T.AvgPool2d(2)),
        *(T.Conv2d(6, 16, 5), T.ReLU(), T.AvgPool2d(2), T.Flatten()),
        *(T.Linear(400, 120), T.ReLU(), T.Linear(120, 84), T.ReLU(), T.Linear(84, 10)),
    )


def alexnet() -> Any:
    return T.Sequential(
        *(T.Conv2d(3, 64, 11, 4, 2), T.ReLU(), T.MaxPool2d(3, 2)),
        *(T.Conv2d(64, 192, 5, padding=2), T.ReLU(), T.MaxPool2d(3, 2)),
        *(T.Conv2d(192, 384, 3, padding=1), T.ReLU()),
        *(T.Conv2d(384, 256, 3, padding=1), T.ReLU()),
        *(T.Conv2d(256, 256, 3, padding=1), T.ReLU(), T.MaxPool2d(3, 2)),
        *(T.AdaptiveAvgPool2d(6), T.Flatten(), T.Linear(9216, 4096), T.ReLU()),
        *(T.Linear(4096, 4096), T.ReLU(), T.Linear(4096, 1000)),
    )


def vgg11_bn() -> Any:
    layers: list[Any] = []
    c = 3
    for widths in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for k in widths:
            layers += [T.Conv2d(c, k, 3, padding=1), T.BatchNorm2d(k), T.ReLU()]
            c = k
        layers.append(T.MaxPool2d(2))
    head = (T.Flatten(), T.Linear(25088, 4096), T.ReLU(), T.Linear(4096, 4096), T.ReLU())
    return T.Sequential(*layers, *head, T.Linear(4096, 1000))


class Block(torch.nn.Module):  # type: ignore[misc]  # torch is Any here
    """A residual block, basic or with a bottleneck."""

    def __init__(self, c: int, width: int, k: int, stride: int) -> None:
        super().__init__()
        if k == width:
            convs = [T.Conv2d(c, k, 3, stride, 1, bias=False), T.Conv2d(k, k, 3, 1, 1, bias=False)]
        else:
            convs = [
                T.Conv2d(c, width, 1, bias=False),
                T.Conv2d(width, width, 3, stride, 1, bias=False),
                T.Conv2d(width, k, 1, bias=False),
            ]
        steps: list[Any] = []
        for conv in convs:
            steps += [conv, T.BatchNorm2d(conv.out_channels), T.ReLU()]
        self.body = T.Sequential(*steps[:-1])
        self.shortcut = T.Sequential()
        if stride != 1 or c != k:
            self.shortcut = T.Sequential(T.Conv2d(c, k, 1, stride, bias=False), T.BatchNorm2d(k))

    def forward(self, x: Any) -> Any:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet(
    stem: int, repeats: tuple[int, ...], expansion: int, classes: int, imagenet: bool
) -> Callable[[], Any]:
    def make() -> Any:
        size, stride = (7, 2) if imagenet else (3, 1)
        layers = [T.Conv2d(3, stem, size, stride, size // 2, bias=False), T.BatchNorm2d(stem)]
        layers += [T.ReLU(), *([T.MaxPool2d(3, 2, 1)] if imagenet else [])]
        c = stem
        for stage, count in enumerate(repeats):
            width = stem * 2**stage
            for i in range(count):
                first = 2 if stage and not i else 1
                layers.append(Block(c, width, width * expansion, first))
                c = width * expansion
        return T.Sequential(*layers, T.AdaptiveAvgPool2d(1), T.Flatten(), T.Linear(c, classes))

    return make


TWINS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "mnist_convnet": (mnist_convnet, (7, 1, 28, 28)),
    "mlp": (mlp, (7, 1, 28, 28)),
    "lenet5": (lenet5, (7, 1, 28, 28)),
    "alexnet": (alexnet, (1, 3, 224, 224)),
    "vgg11_bn": (vgg11_bn, (1, 3, 224, 224)),
    "resnet20": (resnet(16, (3, 3, 3), 1, 10, False), (5, 3, 32, 32)),
    "resnet18": (resnet(64, (2, 2, 2, 2), 1, 1000, True), (3, 3, 96, 64)),
    "resnet34": (resnet(64, (3, 4, 6, 3), 1, 1000, True), (3, 3, 64, 96)),
    "resnet50": (resnet(64, (3, 4, 6, 3), 4, 1000, True), (3, 3, 96, 64)),
}


# A gigabyte each in float64. In float32 a few ReLUs of many millions are decided otherwise, and
# normalisation over one image makes more of it.
LARGE = {"alexnet": 1e-3, "vgg11_bn": 2e-2}


def torch_twin(name: str, model: nn.Sequential) -> Any:
    """The same network in PyTorch, with the same weights and running statistics."""
    twin = TWINS[name][0]().to(getattr(torch, model.dtype.name))
    for theirs, ours in zip(twin.parameters(), model.parameters(), strict=True):
        theirs.data = torch.tensor(ours.data)
    return twin


def relative_error(ours: Any, theirs: Any) -> float:
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


@pytest.mark.parametrize("name", sorted(TWINS.keys() - LARGE.keys()))
def test_a_training_step_equals_pytorch(
    name: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, where rounding does not decide on which side of zero a ReLU's input is."""
    monkeypatch.setattr(nn.init, "floating", lambda dtype: np.float64)
    check_step(name, rng.standard_normal(TWINS[name][1]), 1e-9)


@pytest.mark.parametrize("name", ["mnist_convnet", "mlp", "lenet5", *sorted(LARGE)])
def test_a_training_step_in_float32(name: str, rng: np.random.Generator) -> None:
    check_step(name, rng.standard_normal(TWINS[name][1], np.float32), LARGE.get(name, 1e-5))


def check_step(name: str, x: Any, bound: float) -> None:
    """Outputs, loss, gradients, updated weights and running statistics, within `bound`."""
    model = models.build(name, rng=3)
    for layer in model.walk():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    twin = torch_twin(name, model)
    y = np.arange(len(x)) % 10

    prediction = twin(torch.tensor(x))
    value = torch.nn.functional.cross_entropy(prediction, torch.tensor(y))
    value.backward()
    torch.optim.SGD(twin.parameters(), lr=0.1).step()

    loss = nn.SoftmaxCrossEntropy()
    ours = model.forward(x)
    assert relative_error(ours, prediction.detach().numpy()) < bound
    assert loss.forward(ours, y) == pytest.approx(value.item(), rel=bound)
    model.backward(loss.backward())
    optim.SGD(0.1).step(model.parameters())
    largest = max(float(t.grad.abs().max()) for t in twin.parameters())
    for p, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert np.abs(p.grad - theirs.grad.numpy()).max() < bound * largest, p.name
        assert np.abs(p.data - theirs.detach().numpy()).max() < bound * largest, p.name
    buffers = [s for s in model.state() if not isinstance(s, nn.Parameter)]
    statistics = [b for b in twin.buffers() if b.ndim]  # without the counts of batches
    for state, tensor in zip(buffers, statistics, strict=True):
        assert relative_error(state.data, tensor.numpy()) < bound, state.name
