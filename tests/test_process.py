"""The process around the kernels: fork, shutdown, import, environment, silence after a call.

Each test runs a small program in an interpreter of its own.
"""

import os
import sys
from pathlib import Path

import pytest

from checks import run_python, try_python

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# A convolution on two threads; of ones with 16 * 3 * 2 ones each output is 96.
PRELUDE = """
import os, sys, threading, time, warnings
import numpy as np
import fastconv

warnings.simplefilter("ignore", DeprecationWarning)  # Python >= 3.12 on fork with threads
x = np.ones((2, 16, 40, 37), np.float32)
w = np.ones((24, 16, 3, 2), np.float32)

def conv_is_right():
    y = fastconv.conv2d(x, w)
    return y.shape == (2, 24, 38, 36) and bool((y == 96).all())

def wait_for(pid, seconds=15):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise SystemExit("the forked child hangs")

fastconv.set_num_threads(2)
assert conv_is_right()
"""


def program(body: str) -> str:
    """The prelude followed by a program of its own."""
    return PRELUDE + body


@needs_fork
def test_a_forked_child_computes_after_a_threaded_call_in_the_parent() -> None:
    run_python(
        program("""
pid = os.fork()
if pid == 0:
    os._exit(0 if conv_is_right() else 1)
assert wait_for(pid) == 0
assert conv_is_right()
""")
    )


@needs_fork
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_a_forked_child_has_a_pool_of_its_own() -> None:
    run_python(
        program("""
pid = os.fork()
if pid == 0:
    alone = len(os.listdir("/proc/self/task"))
    right = conv_is_right()
    joined = len(os.listdir("/proc/self/task"))
    os._exit(0 if right and (alone, joined) == (1, 2) else 1)
assert wait_for(pid) == 0
""")
    )


@needs_fork
@pytest.mark.parametrize(("leave", "forks"), [("os._exit", 150), ("sys.exit", 15)])
def test_fork_while_another_thread_is_inside_a_kernel(leave: str, forks: int) -> None:
    """Many small products a call, so that the forks meet every moment of one."""
    run_python(
        program(f"""
small = np.ones((200, 16, 4, 3), np.float32)

def work():
    while True:
        fastconv.conv2d(small, w)

threading.Thread(target=work, daemon=True).start()
for _ in range({forks}):
    pid = os.fork()
    if pid == 0:
        {leave}(0 if conv_is_right() else 1)
    assert wait_for(pid) == 0
os._exit(0)  # leaving properly with a thread at work is another test's business
""")
    )


@needs_fork
def test_a_grandchild_computes_too() -> None:
    run_python(
        program("""
pid = os.fork()
if pid == 0:
    right = conv_is_right()
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if conv_is_right() else 1)
    os._exit(0 if right and wait_for(grandchild, 10) == 0 else 1)
assert wait_for(pid) == 0
""")
    )


@pytest.mark.parametrize(
    "method",
    ["spawn", *(pytest.param(name, marks=needs_fork) for name in ("fork", "forkserver"))],
)
def test_multiprocessing(method: str, tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(program("def work(_): return conv_is_right()\n"))
    run_python(f"""
        import multiprocessing, sys
        sys.path.insert(0, {str(tmp_path)!r})
        import workers
        with multiprocessing.get_context("{method}").Pool(2) as pool:
            assert pool.map(workers.work, range(6)) == [True] * 6
            pool.close()
            pool.join()
    """)


def test_exit_right_after_a_call() -> None:
    run_python(program(""))


@pytest.mark.parametrize("attempt", range(3))
def test_exit_while_a_daemon_thread_computes(attempt: int) -> None:
    done = try_python(
        program(f"""
def work():
    while True:
        fastconv.conv2d(x, w)

for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.05 + 0.003 * {attempt})
""")
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_exit_while_a_thread_still_computes_waits_for_it() -> None:
    printed = run_python(
        program("""
def work():
    for _ in range(20):
        assert conv_is_right()
    print("finished")

threading.Thread(target=work).start()
""")
    )
    assert printed.strip() == "finished"


def test_the_process_is_idle_after_a_call() -> None:
    """The promise is 1 ms of CPU time in the next second; ten leave room for the interpreter."""
    printed = run_python(
        "import numpy, time\ntime.sleep(0.5)  # NumPy's own BLAS threads spin after its import\n"
        + program("""
for _ in range(20):
    fastconv.conv2d(x, w)
before = time.process_time()
time.sleep(1)
print(1000 * (time.process_time() - before))
""")
    )
    print(f"CPU time in the second after a call: {float(printed):.3f} ms")
    assert float(printed) < 10


def test_import_brings_numpy_and_nothing_else() -> None:
    run_python("""
        import sys
        import numpy
        before = set(sys.modules)
        import fastconv
        added = {name.partition(".")[0] for name in set(sys.modules) - before}
        foreign = added - set(sys.stdlib_module_names) - {"fastconv"}
        assert not foreign, foreign
        ours = {name for name in sys.modules if name.startswith("fastconv.")}
        lazy = {"nn", "optim", "data", "models", "plots", "cli", "bench"}
        assert not {f"fastconv.{name}" for name in lazy} & ours, ours
    """)


def test_import_starts_no_thread() -> None:
    run_python("""
        import numpy
        import os, sys
        if not os.path.isdir("/proc/self/task"):
            sys.exit()
        before = os.listdir("/proc/self/task")
        import fastconv
        assert os.listdir("/proc/self/task") == before
    """)


def test_public_names() -> None:
    run_python("""
        import fastconv
        for name in fastconv.__all__:
            getattr(fastconv, name)
        assert set(fastconv.__all__) <= set(dir(fastconv))
    """)


COUNT = "import fastconv; print(fastconv.get_num_threads())"


def test_default_number_of_threads_is_what_the_process_may_use() -> None:
    count = int(run_python(COUNT))
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    assert 1 <= count <= cores


def test_affinity_limits_the_threads() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    assert run_python(f"{one}\n{COUNT}").strip() == "1"


@pytest.mark.parametrize(
    ("ours", "openmp"), [("1", ""), ("", "1"), ("1", "2"), (" 1 ", "")], ids=str
)
def test_environment_limits_the_threads(ours: str, openmp: str) -> None:
    printed = run_python(COUNT, FASTCONV_NUM_THREADS=ours, OMP_NUM_THREADS=openmp)
    assert printed.strip() == "1"


def test_environment_does_not_raise_the_threads_above_the_cores() -> None:
    assert run_python(COUNT, FASTCONV_NUM_THREADS="1000") == run_python(COUNT)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "99999999999999999999"])
def test_a_wrong_number_of_threads_in_the_environment_is_named(value: str) -> None:
    done = try_python(COUNT, FASTCONV_NUM_THREADS=value)
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert "FASTCONV_NUM_THREADS" in message
    assert value in message


@pytest.mark.parametrize("variable", ["FASTCONV_ISA", "FASTCONV_ALGORITHM"])
def test_a_word_in_the_environment_that_is_unknown_is_named(variable: str) -> None:
    done = try_python("import fastconv", **{variable: "z80"})
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert variable in message
    assert "z80" in message


@pytest.mark.parametrize("word", ["off", "false", "no", "2", " 0"])
@pytest.mark.parametrize("algorithm", ["", "implicit"])
def test_a_switch_in_the_environment_is_zero_or_one(word: str, algorithm: str) -> None:
    done = try_python("import fastconv", FASTCONV_WINOGRAD=word, FASTCONV_ALGORITHM=algorithm)
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert f'FASTCONV_WINOGRAD must be 0 or 1, got "{word}"' in message


@pytest.mark.parametrize(("word", "allowed"), [("0", False), ("1", True), ("", True)])
def test_the_switch_of_winograd(word: str, allowed: bool) -> None:
    printed = run_python(
        """
        import fastconv
        shapes = (8, 64, 30, 29), (64, 64, 3, 3)
        print(fastconv.explain("conv2d", *shapes).algorithm)
        """,
        FASTCONV_WINOGRAD=word,
    )
    assert (printed.strip() == "winograd") == allowed


def test_a_sub_interpreter_is_told_that_it_cannot_import() -> None:
    """It must not hang, and the main interpreter goes on. Python 3.13 renamed the module."""
    printed = run_python("""
        import signal
        if hasattr(signal, "alarm"):
            signal.alarm(120)  # instead of waiting for ever
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        program = '''
        import warnings
        warnings.simplefilter("ignore")  # NumPy's, on sub-interpreters
        try:
            import fastconv
        except ImportError as error:
            print("ImportError:", error, flush=True)
        '''
        import textwrap
        interpreters.run_string(interpreters.create(), textwrap.dedent(program))
        import fastconv, numpy
        x = numpy.ones((1, 1, 3, 3), numpy.float32)
        print(fastconv.conv2d(x, x).item())
    """)
    refusal, result = printed.strip().splitlines()
    assert "ImportError" in refusal
    assert "interpreter" in refusal
    assert result == "9.0"
