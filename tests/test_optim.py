"""Optimizers and schedules: by hand, against PyTorch if it is installed, and the flat buffer."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastconv import nn, optim
from fastconv.nn import Parameter


def parameter(*values: float) -> Parameter:
    return Parameter("weight", np.array(values))


def run(optimizer: optim.Optimizer, start: float, gradients: list[float]) -> list[float]:
    """The values that one scalar parameter takes."""
    p = parameter(start)
    values = []
    for gradient in gradients:
        p.grad[...] = gradient
        optimizer.step([p])
        values.append(p.data.item())
    return values


def test_sgd_by_hand() -> None:
    assert run(optim.SGD(0.5), 1.0, [0.4, -0.2]) == pytest.approx([0.8, 0.9])
    # v = 0.4, then 0.9 * 0.4 - 0.2 = 0.16
    assert run(optim.SGD(0.5, momentum=0.9), 1.0, [0.4, -0.2]) == pytest.approx([0.8, 0.72])
    # steps of 0.5 * (0.4 + 0.9 * 0.4) and 0.5 * (-0.2 + 0.9 * 0.16)
    nesterov = optim.SGD(0.5, momentum=0.9, nesterov=True)
    assert run(nesterov, 1.0, [0.4, -0.2]) == pytest.approx([0.62, 0.648])
    # g = 0.4 + 0.1 * 1, then -0.2 + 0.1 * 0.75
    assert run(optim.SGD(0.5, weight_decay=0.1), 1.0, [0.4, -0.2]) == pytest.approx([0.75, 0.8125])


def test_rmsprop_by_hand() -> None:
    # v = 0.01, then 0.75 * 0.01 + 0.25 * 0.01 = 0.01: steps of lr * g / 0.1
    values = run(optim.RMSprop(0.01, alpha=0.75), 1.0, [0.2, -0.1])
    assert values == pytest.approx([0.98, 0.99], abs=1e-8)


def test_adam_by_hand() -> None:
    # First step: m and v corrected are g and g², so it is lr * sign(g). Second: m = 0.18 and
    # v = 0.001 * (0.999 * 0.16 + 0.04), corrected by 1 - 0.81 and 1 - 0.998001.
    first = 1.0 - 0.1
    m = (0.9 * 0.1 * 0.4 + 0.1 * -0.2) / 0.19
    v = 0.001 * (0.999 * 0.16 + 0.04) / 0.001999
    expected = [first, first - 0.1 * m / math.sqrt(v)]
    assert run(optim.Adam(0.1), 1.0, [0.4, -0.2]) == pytest.approx(expected, abs=1e-8)


def test_adamw_decays_the_weights_and_not_the_gradient() -> None:
    values = run(optim.AdamW(0.1, weight_decay=0.5), 2.0, [0.3])
    assert values == pytest.approx([2.0 * (1 - 0.1 * 0.5) - 0.1], abs=1e-8)
    assert run(optim.Adam(0.1, weight_decay=0.5), 2.0, [0.3]) == pytest.approx([1.9], abs=1e-8)


PEERS: dict[str, tuple[Callable[[], optim.Optimizer], dict[str, Any]]] = {
    "SGD": (lambda: optim.SGD(0.1), {"lr": 0.1}),
    "SGD-momentum": (
        lambda: optim.SGD(0.1, momentum=0.9, weight_decay=0.01),
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    ),
    "SGD-nesterov": (
        lambda: optim.SGD(0.1, momentum=0.8, nesterov=True, weight_decay=0.02),
        {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02},
    ),
    "RMSprop": (lambda: optim.RMSprop(), {}),
    "RMSprop-decay": (
        lambda: optim.RMSprop(0.02, alpha=0.9, eps=1e-6, weight_decay=0.01),
        {"lr": 0.02, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.01},
    ),
    "Adam": (lambda: optim.Adam(), {}),
    "Adam-decay": (
        lambda: optim.Adam(0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.01),
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.01},
    ),
    "AdamW": (lambda: optim.AdamW(), {}),
}


@pytest.mark.parametrize("name", PEERS)
def test_updates_equal_pytorch(name: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    make, keywords = PEERS[name]
    ours = [Parameter("a", rng.standard_normal((3, 5))), Parameter("b", rng.standard_normal(4))]
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in ours]
    optimizer = make()
    peer = getattr(torch.optim, name.partition("-")[0])(theirs, **keywords)
    for _ in range(7):
        for p, t in zip(ours, theirs, strict=True):
            p.grad[...] = rng.standard_normal(p.grad.shape)
            t.grad = torch.tensor(p.grad)
        optimizer.step(ours)
        peer.step()
    for p, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-12, atol=1e-14)


def optimizers() -> list[optim.Optimizer]:
    return [
        optim.SGD(0.1),
        optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        optim.RMSprop(0.1, weight_decay=0.1),
        optim.Adam(0.1, weight_decay=0.1),
        optim.AdamW(0.1),
    ]


@pytest.mark.parametrize("index", range(len(optimizers())))
def test_blocks_do_not_change_an_update(index: int, rng: np.random.Generator) -> None:
    size = 2 * optim.optimizers.BLOCK + 77
    together = Parameter("all", rng.standard_normal(size, np.float32))
    borders = [optim.optimizers.BLOCK - 5, optim.optimizers.BLOCK + 3]
    apart = [Parameter("part", part.copy()) for part in np.split(together.data, borders)]
    one, each = optimizers()[index], [optimizers()[index] for _ in apart]
    for _ in range(3):
        together.grad[...] = rng.standard_normal(size, np.float32)
        given = together.grad.copy()
        one.step([together])
        np.testing.assert_array_equal(together.grad, given)
        for p, grad, optimizer in zip(apart, np.split(given, borders), each, strict=True):
            p.grad[...] = grad
            optimizer.step([p])
    assert together.data.dtype == np.float32
    np.testing.assert_array_equal(together.data, np.concatenate([p.data for p in apart]))


def test_parameters_become_views_of_one_array_with_their_values(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, (3, 2), rng=rng), nn.Flatten(), nn.Linear(6, 5, rng=rng))
    parameters = model.parameters()
    before = [p.data.copy() for p in parameters]
    optim.SGD(0.0).step(parameters)
    for p, data in zip(parameters, before, strict=True):
        np.testing.assert_array_equal(p.data, data)
    for arrays in ([p.data for p in parameters], [p.grad for p in parameters]):
        (base,) = {id(array.base): array.base for array in arrays}.values()
        assert base is not None
        assert base.size == sum(array.size for array in arrays)


def test_each_dtype_has_its_array() -> None:
    single, double = Parameter("s", np.ones(3, np.float32)), Parameter("d", np.ones((2, 2)))
    single.grad[...] = double.grad[...] = 1
    optim.SGD(0.25).step([single, double])
    assert single.data.dtype == np.float32
    assert double.data.dtype == np.float64
    np.testing.assert_array_equal(single.data, np.full(3, 0.75))
    np.testing.assert_array_equal(double.data, np.full((2, 2), 0.75))


def test_a_repointed_parameter_is_packed_again_and_keeps_its_averages() -> None:
    p, q = parameter(1.0), parameter(1.0, 2.0)
    optimizer = optim.SGD(0.5, momentum=0.9)
    p.grad[...] = q.grad[...] = 0.4
    optimizer.step([p, q])
    p.data, p.grad = p.data.copy(), np.array([-0.2])
    q.grad[...] = -0.2
    optimizer.step([p, q])
    np.testing.assert_allclose(p.data, [0.72])  # as in test_sgd_by_hand
    np.testing.assert_allclose(q.data, [0.72, 1.72])


def test_other_parameters_are_refused() -> None:
    optimizer = optim.Adam()
    optimizer.step([parameter(1.0)])
    with pytest.raises(ValueError, match="not those of the first step; make a new optimizer"):
        optimizer.step([parameter(1.0)])


def test_a_schedule_is_asked_for_every_step() -> None:
    steps: list[int] = []

    def schedule(step: int) -> float:
        steps.append(step)
        return 0.5 / (step + 1)

    assert run(optim.SGD(schedule), 1.0, [0.4, 0.4]) == pytest.approx([0.8, 0.7])
    assert steps == [0, 1]


def test_step_decay() -> None:
    schedule = optim.StepDecay(0.8, 3, gamma=0.5)
    assert [schedule(step) for step in (0, 2, 3, 5, 6)] == [0.8, 0.8, 0.4, 0.4, 0.2]
    assert optim.StepDecay(0.8, 3)(3) == pytest.approx(0.08)


def test_cosine_warms_up_and_falls() -> None:
    schedule = optim.Cosine(0.8, 12, warmup_steps=4, final_lr=0.2)
    assert [schedule(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [schedule(step) for step in (4, 8, 12, 99)] == pytest.approx([0.8, 0.5, 0.2, 0.2])
    assert optim.Cosine(0.8, 6)(2) == pytest.approx(0.8 * (1 + math.cos(math.pi / 3)) / 2)


def test_one_cycle_rises_and_falls() -> None:
    schedule = optim.OneCycle(1.0, 20, div_factor=10, final_div_factor=100)  # its peak is step 5
    values = [schedule(step) for step in (0, 5, 12, 19)]
    assert values == pytest.approx([0.1, 1.0, (1.0 + 0.001) / 2, 0.001])
    rise = 0.1 + 0.9 * (1 - math.cos(math.pi * 2 / 5)) / 2
    assert schedule(2) == pytest.approx(rise)


def test_schedules_equal_pytorch() -> None:
    torch = pytest.importorskip("torch")
    schedulers = torch.optim.lr_scheduler
    pairs: list[tuple[Callable[[int], float], Callable[[Any], Any]]] = [
        (optim.StepDecay(0.3, 4, 0.2), lambda o: schedulers.StepLR(o, 4, 0.2)),
        (optim.Cosine(0.3, 20, 0, 0.01), lambda o: schedulers.CosineAnnealingLR(o, 20, 0.01)),
        (optim.OneCycle(0.3, 20), lambda o: schedulers.OneCycleLR(o, 0.3, 20)),
    ]
    for ours, make in pairs:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
        peer = make(optimizer)
        for step in range(20):
            assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
            optimizer.step()
            if step < 19:
                peer.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD(-0.1), "lr must be a number >= 0, got -0.1"),
        (lambda: optim.SGD(math.nan), "lr must be .*, got nan"),
        (lambda: optim.SGD(0.1, momentum=1.0), r"momentum must be a number in \[0, 1\), got 1.0"),
        (lambda: optim.SGD(0.1, nesterov=True), "nesterov=True needs a momentum > 0"),
        (lambda: optim.RMSprop(alpha=1.5), "alpha must be .*, got 1.5"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), "betas must be .*, got 1.0"),
        (lambda: optim.Adam(eps=0.0), "eps must be a number > 0, got 0.0"),
        (lambda: optim.AdamW(weight_decay=-1.0), "weight_decay must be .*, got -1.0"),
        (lambda: optim.StepDecay(0.1, 0), "step_size must be .*, got 0"),
        (lambda: optim.Cosine(0.1, 5, warmup_steps=5), "warmup_steps must be .*, got 5"),
        (lambda: optim.OneCycle(0.1, 3), "total_steps must be .*, got 3"),
        (lambda: optim.OneCycle(0.1, 9, pct_start=1.0), "pct_start must be .*, got 1.0"),
    ],
)
def test_wrong_settings(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
