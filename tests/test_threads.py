"""Threads: the same bits on any number of them, calls from several, and who sets the number."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import fastconv
from cases import CONV_CASES, ConvCase
from checks import (
    ALGORITHMS,
    DTYPES,
    LAYOUTS,
    PASSES,
    Layout,
    Pass,
    assert_same_bits,
    integer_problem,
    random_problem,
    same_bits,
)

WORTH_SPLITTING = (
    ConvCase("batch", (6, 19, 29, 23), (37, 19, 3, 5), padding=(1, 2)),
    ConvCase("one_image", (1, 33, 41, 37), (70, 33, 3, 2)),
    ConvCase("few_filters", (3, 3, 83, 61), (2, 3, 7, 5), stride=(2, 1)),
    ConvCase("depthwise", (2, 50, 33, 27), (50, 1, 3, 5), groups=50),
    ConvCase("one_by_one", (2, 131, 17, 19), (67, 131, 1, 1)),
    ConvCase("one_by_one_tiles", (2, 131, 9, 11), (67, 131, 1, 1)),
    ConvCase("one_by_one_thinned", (3, 80, 17, 18), (300, 80, 1, 1), stride=2),
    ConvCase("many_images", (70, 3, 9, 8), (5, 3, 3, 2)),
)


def on_each_count(call: Callable[[], Any]) -> list[Any]:
    """The results of a call on one to four threads."""
    results = []
    for count in (1, 2, 3, 4):
        with fastconv.num_threads(count):
            results.append(call())
    return results


@pytest.mark.parametrize("case", WORTH_SPLITTING, ids=str)
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_convolution_has_the_same_bits_on_any_number_of_threads(
    case: ConvCase, which: Pass, algorithm: str, layout: Layout, dtype: str
) -> None:
    problem = random_problem(case, dtype)
    first, *others = on_each_count(lambda: problem.run(which, dtype, layout, algorithm=algorithm))
    assert all(same_bits(other, first) for other in others)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pooling_and_sums_have_the_same_bits_on_any_number_of_threads(
    layout: Layout, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((3, 37, 41, 33), np.float32)

    def everything() -> list[Any]:
        y, indices = fastconv.max_pool2d(x, (3, 2), stride=1, layout=layout, return_indices=True)
        dx = fastconv.max_pool2d_grad(y, indices, x.shape, layout=layout)
        return [y, indices, dx, fastconv.conv2d_grad_bias(x, layout=layout)]

    first, *others = on_each_count(everything)
    for other in others:
        assert all(same_bits(a, b) for a, b in zip(other, first, strict=True))


def test_the_same_call_gives_the_same_bits_again() -> None:
    problem = random_problem(WORTH_SPLITTING[0], "float32")
    for which in PASSES:
        first = problem.run(which, "float32")
        assert all(same_bits(problem.run(which, "float32"), first) for _ in range(10))


def test_alignment_does_not_change_the_bits(rng: np.random.Generator) -> None:
    x, w = (
        rng.standard_normal((2, 5, 13, 11), np.float32),
        rng.standard_normal((7, 5, 3, 2), np.float32),
    )
    want = fastconv.conv2d(x, w)
    for shift in range(1, 17):
        buffer = np.empty(x.size + shift, np.float32)
        moved = buffer[shift:].reshape(x.shape)
        moved[...] = x
        assert_same_bits(fastconv.conv2d(moved, w), want)


def test_eight_threads_may_call_at_once() -> None:
    cases = [*WORTH_SPLITTING, *CONV_CASES[:10]]
    start = threading.Barrier(8)

    def work(seat: int) -> None:
        start.wait()
        for i in range(3 * len(cases)):
            problem = integer_problem(cases[(seat + i) % len(cases)])
            which = PASSES[(seat + i) % 3]
            np.testing.assert_array_equal(problem.run(which, "float32"), problem.exact(which))

    for case in cases:
        integer_problem(case).exact("forward")  # the oracle's share, once and beforehand
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, seat) for seat in range(8)]:
            done.result()


@pytest.mark.usefixtures("process_threads")
def test_the_number_may_change_while_others_compute() -> None:
    problem = integer_problem(WORTH_SPLITTING[0])
    want = problem.exact("forward")
    finished = threading.Event()

    def toggle() -> None:
        while not finished.is_set():
            for count in (1, 2, 3, 4):
                fastconv.set_num_threads(count)

    with ThreadPoolExecutor(2) as pool:
        toggling = pool.submit(toggle)
        try:
            for _ in range(30):
                np.testing.assert_array_equal(problem.run("forward", "float32"), want)
        finally:
            finished.set()
        toggling.result()


def test_the_gil_is_free_while_a_kernel_runs() -> None:
    """The main thread gets its turns while another one is inside a single long call."""
    x, w = np.ones((16, 64, 64, 64), np.float32), np.ones((64, 64, 3, 3), np.float32)
    out = np.empty((16, 64, 62, 62), np.float32)
    started, turns = threading.Event(), []

    def work() -> None:
        with fastconv.num_threads(1):
            started.set()
            fastconv.conv2d(x, w, out=out)

    worker = threading.Thread(target=work)
    worker.start()
    started.wait()
    while worker.is_alive():
        turns.append(time.perf_counter())
        time.sleep(0.001)
    worker.join()
    assert len(turns) > 5


@pytest.mark.usefixtures("process_threads")
def test_set_num_threads_is_for_the_whole_process() -> None:
    fastconv.set_num_threads(3)
    assert fastconv.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(fastconv.get_num_threads).result() == 3
        pool.submit(fastconv.set_num_threads, 2).result()
    assert fastconv.get_num_threads() == 2


@pytest.mark.usefixtures("process_threads")
def test_num_threads_is_for_this_thread_alone() -> None:
    fastconv.set_num_threads(2)
    with fastconv.num_threads(5), ThreadPoolExecutor(1) as pool:
        assert fastconv.get_num_threads() == 5
        assert pool.submit(fastconv.get_num_threads).result() == 2
        fastconv.set_num_threads(3)  # the process's number, under this thread's own
        assert fastconv.get_num_threads() == 5
    assert fastconv.get_num_threads() == 3


def test_num_threads_nests_and_restores_after_an_exception() -> None:
    def fail() -> None:
        with fastconv.num_threads(3):
            assert fastconv.get_num_threads() == 3
            raise RuntimeError("inside")

    before = fastconv.get_num_threads()
    with fastconv.num_threads(2):
        with pytest.raises(RuntimeError, match="inside"):
            fail()
        assert fastconv.get_num_threads() == 2
    assert fastconv.get_num_threads() == before


def test_more_threads_than_cores_are_allowed() -> None:
    problem = integer_problem(WORTH_SPLITTING[0])
    with fastconv.num_threads(33):
        np.testing.assert_array_equal(problem.run("forward", "float32"), problem.exact("forward"))


@pytest.mark.parametrize("setter", [fastconv.set_num_threads, fastconv.num_threads])
@pytest.mark.parametrize(
    ("count", "kind"),
    [(0, ValueError), (-1, ValueError), (2**40, ValueError), (1.0, TypeError), (True, TypeError)],
)
def test_wrong_numbers_of_threads(setter: Any, count: Any, kind: type[Exception]) -> None:
    before = fastconv.get_num_threads()
    with pytest.raises(kind, match=f"{count}|{type(count).__name__}"):
        setter(count)
    assert fastconv.get_num_threads() == before
