"""The memory of a process that convolves: bounded over many shapes, within workspace_limit.

Each test runs a small program in an interpreter of its own.
"""

import sys

import pytest

from checks import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PRELUDE = """
import gc, re, threading
import numpy as np
import fastconv

MIB = 2**20
rng = np.random.default_rng(3)

def memory(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def in_a_thread_of_its_own(call):
    # Scratch memory stays with the thread that calls: a new one has none, and leaves none.
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()

def peak(call):
    # Of the memory while the call runs, over that before.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = memory("VmRSS")
    in_a_thread_of_its_own(call)
    return memory("VmHWM") - before

def integers(low, high, count):
    return tuple(int(n) for n in rng.integers(low, high, count, endpoint=True))

def all_passes(x, w, **keywords):
    y = fastconv.conv2d(x, w, **keywords)
    fastconv.conv2d_grad_input(y, w, x.shape, **keywords)
    fastconv.conv2d_grad_weight(y, x, w.shape, **keywords)

fastconv.set_num_threads(3)
"""

THOUSAND_SHAPES = (
    PRELUDE
    + """
ALGORITHMS = ("auto", "implicit", "im2col")
KEPT = 64 * MIB  # what a calling thread may keep, workspace.hpp

def random_shapes(count):
    for i in range(count):
        groups = (1, 1, 1, 2)[i % 4]
        n, c, k, r, s = integers(1, 4, 1) + integers(1, 24, 2) + integers(1, 5, 2)
        h, w = integers(6, 120, 2)
        x = np.ones((n, c * groups, h, w), np.float32)
        filters = np.ones((k * groups, c, r, s), np.float32)
        keywords = dict(
            stride=integers(1, 3, 2),
            padding=integers(0, 2, 2),
            groups=groups,
            algorithm=ALGORITHMS[i % 3],
        )
        all_passes(x, filters, **keywords)
        fastconv.max_pool2d(x, integers(1, 3, 2), return_indices=True)

def after(count):
    global rng
    rng = np.random.default_rng(3)  # the same shapes every time
    random_shapes(count)
    gc.collect()
    return memory("VmRSS")

start = after(20)  # BLAS is loaded and the threads have their stacks
sizes = [after(1000) for _ in range(3)]
print([size // MIB for size in (start, *sizes)])
assert sizes[0] - start < KEPT, "more is kept than one thread's scratch memory"
assert max(sizes[1:]) - sizes[0] < 8 * MIB, "memory grows with the number of calls"
"""
)

LARGE_CALLS = (
    PRELUDE
    + """
# 8 * 64 * 9 * 120 * 118 floats of patches are 260 MiB: too much to keep.
x = np.ones((8, 64, 120, 118), np.float32)
w = np.ones((16, 64, 3, 3), np.float32)
all_passes(x[:1, :, :20], w, algorithm="im2col")
before = memory("VmRSS")
for _ in range(3):
    all_passes(x, w, algorithm="im2col")
gc.collect()
assert memory("VmRSS") - before < 64 * MIB, "a large workspace is kept"

def small_calls():
    for algorithm in ("im2col", "implicit", "winograd"):
        fastconv.conv2d(x[:1, :, :20], w, algorithm=algorithm)

for _ in range(50):  # the C library gives its first threads heaps of their own
    in_a_thread_of_its_own(small_calls)  # 5 MiB each
before = memory("VmRSS")
for _ in range(100):
    in_a_thread_of_its_own(small_calls)
assert memory("VmRSS") - before < 64 * MIB, "threads that are gone keep memory"
"""
)

WITHIN_THE_LIMIT = (
    PRELUDE
    + """
x = rng.standard_normal((4, 48, 62, 58), dtype=np.float32)
w = rng.standard_normal((40, 48, 3, 3), dtype=np.float32)
y, dx, dw = np.ones((4, 40, 60, 56), np.float32), np.ones_like(x), np.ones_like(w)
depthwise = np.ones((48, 1, 3, 3), np.float32)
CALLS = {
    "forward": lambda **k: fastconv.conv2d(x, w, out=y, **k),
    "input": lambda **k: fastconv.conv2d_grad_input(y, w, x.shape, out=dx, **k),
    "weight": lambda **k: fastconv.conv2d_grad_weight(y, x, w.shape, out=dw, **k),
}
DIRECT = {
    "forward": lambda **k: fastconv.conv2d(x, depthwise, out=dx[:, :, 1:-1, 1:-1], groups=48, **k),
}

def least(call, algorithm):
    # The least scratch memory that the algorithm says it needs.
    try:
        call(algorithm=algorithm, workspace_limit=0)
    except ValueError as error:
        return int(re.search(r"needs at least (\\d+)", str(error))[1])
    return 0

def check(call, algorithm):
    needed = least(call, algorithm)
    unlimited = lambda: call(algorithm=algorithm)
    for _ in range(2):
        in_a_thread_of_its_own(unlimited)  # code, stacks and BLAS come to memory
    for limit in (needed, 2 * needed + 100_000):
        used = peak(lambda: call(algorithm=algorithm, workspace_limit=limit))
        assert used < limit + MIB, (algorithm, limit, used)
    if needed > 0:
        try:
            call(algorithm=algorithm, workspace_limit=needed - 1)
        except ValueError:
            return
        raise SystemExit("less than the least was enough")

try:
    peak(lambda: None)
except OSError as error:
    print("skip:", error)
else:
    for name, call in CALLS.items():
        for algorithm in ("im2col", "implicit", "winograd", "direct"):
            check(call, algorithm)
        call(workspace_limit=least(call, "implicit"))  # "auto" takes what fits
    check(DIRECT["forward"], "direct")
    print("checked")
"""
)

LONG_AXES = (
    PRELUDE
    + """
SIZE = 4_000_000
fastconv.set_num_threads(2)

def check_averages(x, window, **options):
    y = fastconv.avg_pool2d(x, window, **options)
    dx = np.empty_like(x)
    yield lambda: fastconv.avg_pool2d(x, window, out=y, **options)
    yield lambda: fastconv.avg_pool2d_grad(y, x.shape, window, out=dx, **options)

def calls():
    row = np.ones((1, 1, 1, SIZE), np.float32)
    for stride in (1, 2, 3):
        yield from check_averages(row, (1, 4), stride=(1, stride))
    yield from check_averages(row.reshape(1, 1, SIZE, 1), (4, 1), stride=(2, 1))
    yield from check_averages(row.reshape(1, 1, SIZE // 8, 8), (4, 2), stride=(1, 2))
    yield from check_averages(row[..., ::2], (1, SIZE // 2))
    yield from check_averages(row.reshape(1, 1, SIZE // 4, 4), (1, 3), layout="NHWC")
    halves = np.empty((1, 1, 1, SIZE // 2), np.float32)
    yield lambda: fastconv.adaptive_avg_pool2d(row, (1, SIZE // 2), out=halves)
    whole = np.empty_like(row)
    yield lambda: fastconv.adaptive_avg_pool2d_grad(halves, row.shape, out=whole)

try:
    peak(lambda: None)
except OSError as error:
    print("skip:", error)
else:
    for number, call in enumerate(calls()):
        in_a_thread_of_its_own(call)
        used = peak(call)
        assert used < 3 * MIB, (number, used / MIB)
    print("checked")
"""
)

# Any loop over these extents, and any table of them, would be noticed.
EMPTY_BATCHES = """
import numpy as np
import fastconv

for shape in ((0, 3, 2, 1 << 40), (0, 3, 1 << 40, 2), (2, 0, 1 << 20, 1 << 20)):
    for layout in ("NCHW", "NHWC"):
        x = np.empty(shape if layout == "NCHW" else (*shape[:1], *shape[2:], shape[1]), np.float32)
        for options in ({"stride": 1}, {"stride": 2, "padding": 1}, {"stride": (2, 3)}):
            y = fastconv.avg_pool2d(x, 2, layout=layout, **options)
            dx = fastconv.avg_pool2d_grad(y, x.shape, 2, layout=layout, **options)
            assert dx.shape == x.shape
            y, indices = fastconv.max_pool2d(x, 2, return_indices=True, layout=layout, **options)
            dx = fastconv.max_pool2d_grad(y, indices, x.shape, layout=layout)
            assert dx.shape == x.shape
        y = fastconv.adaptive_avg_pool2d(x, (1, 2), layout=layout)
        assert fastconv.adaptive_avg_pool2d_grad(y, x.shape, layout=layout).shape == x.shape
"""


@pytest.mark.slow
def test_a_thousand_shapes_leave_no_more_memory_than_a_few() -> None:
    run_python(THOUSAND_SHAPES)


def test_what_is_large_or_of_a_dead_thread_is_given_back() -> None:
    run_python(LARGE_CALLS)


def test_a_call_stays_within_its_workspace_limit() -> None:
    if run_python(WITHIN_THE_LIMIT).startswith("skip"):
        pytest.skip("the peak of the memory cannot be reset here")


def test_averages_of_a_long_axis_take_no_memory_that_grows_with_it() -> None:
    if run_python(LONG_AXES).startswith("skip"):
        pytest.skip("the peak of the memory cannot be reset here")


def test_pools_of_an_empty_batch_return_at_once() -> None:
    run_python(EMPTY_BATCHES)
