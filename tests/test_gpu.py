"""GPU arrays without a GPU: CuPy's own array objects over host memory, on emulated kernels; and
what a RuntimeError says is missing, each with a driver made for it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from backends import emulator
from checks import refuses, run_python
from fastconv import _core, models, nn
from fastconv._backend import gpu as _gpu

try:
    import cupy
except ImportError:
    cupy = None

needs_cupy = pytest.mark.skipif(cupy is None, reason="CuPy is not installed")


def host_memory(size: int) -> Any:
    """Memory that CuPy takes for a device's; the bytes before and after it are not its own."""
    buffer = np.full(size + 1024, 0xFF, np.uint8)
    start = -buffer.ctypes.data % 512
    memory = cupy.cuda.UnownedMemory(buffer.ctypes.data + start, max(size, 1), buffer, device_id=0)
    return cupy.cuda.MemoryPointer(memory, 0)


def on_host(array: Any) -> Any:
    """The cells of such an array, for NumPy."""
    described = emulator().describe(array.data.ptr, array.shape, array.strides, array.dtype, array)
    return np.asarray(described)


def as_cupy(array: Any) -> Any:
    """A CuPy array with the cells of a NumPy array."""
    made = cupy.empty(array.shape, array.dtype)
    on_host(made)[...] = array
    return made


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CuPy whose device is the host, and kernels that run there."""
    module = emulator()
    monkeypatch.setattr(_gpu, "load_module", lambda: module)
    monkeypatch.setattr(_gpu, "current_stream", lambda: 0)
    _gpu.kernels.cache_clear()
    before = cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(host_memory)
    yield
    cupy.cuda.set_allocator(before)
    _gpu.kernels.cache_clear()


def operands() -> tuple[Any, Any, Any]:
    """x (2, 3, 7, 9), w (4, 3, 3, 2) and a bias."""
    rng = np.random.default_rng(4)
    shapes: tuple[tuple[int, ...], ...] = ((2, 3, 7, 9), (4, 3, 3, 2), (4,))
    x, w, bias = (rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes)
    return x, w, bias


def test_the_module_has_every_op_of_the_cpu() -> None:
    host = {"num_threads", "set_num_threads", "exchange_thread_limit", "isa", "available_isas"}
    host |= {"blas_version", "measure_peak", "transposed_geometry", "adaptive_geometry"}
    host |= {"flush_denormal", "set_flush_denormal"}
    ops = {name for name, value in vars(_core).items() if callable(value) and name[0].islower()}
    assert ops - host <= set(vars(emulator()))


@needs_cupy
@pytest.mark.usefixtures("gpu")
def test_cupy_in_cupy_out() -> None:
    x, w, bias = operands()
    y = fastconv.conv2d(*map(as_cupy, (x, w, bias)), padding=(1, 2), stride=(2, 1))
    assert type(y) is cupy.ndarray
    np.testing.assert_array_equal(
        on_host(y), fastconv.conv2d(x, w, bias, padding=(1, 2), stride=(2, 1))
    )
    pooled, indices = fastconv.max_pool2d(y, 2, return_indices=True)
    assert type(pooled) is type(indices) is cupy.ndarray
    dy = fastconv.max_pool2d_grad(pooled, indices, y.shape)
    gradients = fastconv.conv2d_grad(dy, as_cupy(x), as_cupy(w), padding=(1, 2), stride=(2, 1))
    want = fastconv.conv2d_grad(on_host(dy), x, w, padding=(1, 2), stride=(2, 1))
    for ours, exact in zip(gradients, want, strict=True):
        np.testing.assert_array_equal(on_host(ours), exact)


@needs_cupy
@pytest.mark.usefixtures("gpu")
def test_views_are_taken_where_they_lie() -> None:
    x, w, _ = operands()
    want = fastconv.conv2d(x[:, :, ::-1, 1:], w)
    given = as_cupy(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    filters = as_cupy(np.ascontiguousarray(w.transpose(2, 3, 1, 0))).transpose(3, 2, 0, 1)
    y = fastconv.conv2d(given[:, :, ::-1, 1:], filters)
    np.testing.assert_array_equal(on_host(y), want)
    out = cupy.empty((2, 5, 8, 4), np.float32).transpose(0, 3, 1, 2)[..., 1:]
    assert fastconv.conv2d(given[:, :, ::-1, 1:], filters, out=out) is out
    np.testing.assert_array_equal(on_host(out), want)


@needs_cupy
@pytest.mark.usefixtures("gpu")
def test_what_is_refused() -> None:
    x, w, _ = operands()
    xs, ws = as_cupy(x), as_cupy(w)
    with refuses(TypeError, "w", "ndarray", "cupy.asarray"):
        fastconv.conv2d(xs, w)
    with refuses(TypeError, "x", "ndarray"):
        fastconv.conv2d(x, ws)
    with refuses(TypeError, "w", "float64", "float32"):
        fastconv.conv2d(xs, as_cupy(w.astype(float)))
    with refuses(TypeError, "out", "CuPy", "ndarray"):
        fastconv.conv2d(xs, ws, out=np.empty((2, 4, 5, 8), np.float32))
    with refuses(ValueError, "out", "(2, 4, 5, 8)"):
        fastconv.conv2d(xs, ws, out=cupy.empty((2, 4, 5, 7), np.float32))
    with refuses(ValueError, "out", "x", "memory"):
        fastconv.max_pool2d(xs, 1, out=xs)
    with refuses(ValueError, "im2col", "implicit", "direct"):
        fastconv.conv2d(xs, ws, algorithm="im2col")
    with refuses(ValueError, "x has 3 channels"):
        fastconv.conv2d(xs, ws[:, :2])


@needs_cupy
@pytest.mark.usefixtures("gpu")
def test_empty_arrays() -> None:
    x, w, _ = operands()
    assert fastconv.conv2d(as_cupy(x[:0]), as_cupy(w)).shape == (0, 4, 5, 8)
    dw = fastconv.conv2d_grad_weight(cupy.empty((0, 4, 5, 8), np.float32), as_cupy(x[:0]), w.shape)
    np.testing.assert_array_equal(on_host(dw), np.zeros_like(w))


@needs_cupy
@pytest.mark.usefixtures("gpu")
def test_a_model_moves_and_answers_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy, "asarray", as_cupy)  # a copy to a device, which is not there
    model = models.mnist_convnet(rng=3).eval()
    x = np.random.default_rng(5).random((2, 1, 28, 28), np.float32)
    want = model.forward(x)
    model.to("cuda")
    assert all(type(s.data) is cupy.ndarray for s in model.state())
    got = model.forward(as_cupy(x))
    assert type(got) is cupy.ndarray
    np.testing.assert_allclose(on_host(got), want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastconv._cuda", None)
    _gpu.kernels.cache_clear()
    with refuses(RuntimeError, "no CUDA module", "FASTCONV_CUDA=ON"):
        nn.ReLU().to("cuda")


def test_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(_gpu, "load_module", lambda: None)
    _gpu.kernels.cache_clear()
    with refuses(RuntimeError, "CuPy", "not installed", "fastconv[cuda13]"):
        nn.ReLU().to("cuda")


# A libcuda.so.1 that answers as one with no device, or an old one, does.
DRIVER = """
#include <string.h>
int cuInit(unsigned f) { return STATUS; }
int cuDriverGetVersion(int* v) { *v = VERSION; return 0; }
int cuDeviceGetCount(int* n) { *n = 0; return STATUS; }
static int other(void) { return STATUS; }
int cuGetProcAddress_v2(const char* s, void** p, int v, unsigned long long f, int* st) {
  if (st) *st = 0;
  *p = !strcmp(s, "cuInit") ? (void*)cuInit
     : !strcmp(s, "cuDriverGetVersion") ? (void*)cuDriverGetVersion
     : !strcmp(s, "cuDeviceGetCount") ? (void*)cuDeviceGetCount
     : !strcmp(s, "cuGetProcAddress") ? (void*)cuGetProcAddress_v2 : (void*)other;
  return 0;
}
int cuGetProcAddress(const char* s, void** p, int v, unsigned long long f) {
  return cuGetProcAddress_v2(s, p, v, f, 0);
}
int cuGetExportTable(const void** t, const void* id) { return STATUS; }
"""
ASK = """
import importlib.util
if importlib.util.find_spec("fastconv._cuda") is None:
    print("no module")
else:
    from fastconv import _cuda
    try:
        _cuda.require_device()
        print("a device")
    except RuntimeError as error:
        print(error)
"""


def answer(folder: Path, **environment: str) -> str:
    """What the module says of a machine whose libcuda lies in `folder`."""
    said = run_python(ASK, LD_LIBRARY_PATH=str(folder), **environment).strip()
    if said == "no module":
        pytest.skip("this build has no CUDA module")
    return said


def driver(folder: Path, status: int, version: int) -> Path:
    """Compile the driver into the folder."""
    source = folder / "driver.c"
    source.write_text(DRIVER)
    target = ["-o", str(folder / "libcuda.so.1")]
    numbers = [f"-DSTATUS={status}", f"-DVERSION={version}"]
    subprocess.run(["cc", "-shared", "-fPIC", "-w", *numbers, str(source), *target], check=True)
    return folder


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a driver")
def test_no_driver(tmp_path: Path) -> None:
    assert "no NVIDIA driver" in answer(tmp_path)


def test_no_device(tmp_path: Path) -> None:
    assert "no CUDA device" in answer(driver(tmp_path, 100, 13000))


def test_an_old_driver(tmp_path: Path) -> None:
    said = answer(driver(tmp_path, 35, 12080))
    assert "driver is too old" in said
    assert "12.8" in said
    assert "580" in said
