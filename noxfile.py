"""The project's chores: `nox` checks style, types and tests; `nox -s NAME` does any one of them."""

import os
import re
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_venv = "yes"

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
PRESETS = ("released", "asan", "tsan")
EMULATED = ("nehalem", "aarch64")
CUDA_TOOLS = (
    "pybind11>=3.1",
    "nvidia-cuda-cuobjdump==13.2.*",
    "nvidia-cuda-nvdisasm==13.2.*",
    "gcovr>=8",
    "pytest-xdist>=3",
)
CUDA_TESTS = ("backends", "tensor_cores", "wgmma", "gpu", "gpu_training")
EMULATOR = ("emulator-coverage", "emulator-asan", "emulator-tsan")
# gcovr: the instances of a template are one.
MERGED = ("--merge-mode-functions", "merge-use-line-min", "--merge-lines")
MANY_HITS = ("--gcov-suspicious-hits-threshold", "0")  # billions are no error here


def extra(name: str) -> list[str]:
    """The requirements of one of our extras, without fastconv itself: that would be built."""
    found = []
    for requirement in PROJECT["optional-dependencies"][name]:
        nested = re.fullmatch(rf"{PROJECT['name']}\[(\w+)\]", requirement)
        found += extra(nested[1]) if nested else [requirement]
    return found


def pinned(*names: str) -> list[str]:
    """The requirements of [dev] that have these names."""
    return [r for r in extra("dev") if re.split(r"[<>=]", r)[0] in names]


def workflows(session: nox.Session, presets: tuple[str, ...]) -> None:
    """Configure, build and test each of these presets, or those that the command line names."""
    session.install(*pinned("cmake", "ninja"))
    for preset in session.posargs or presets:
        session.run("cmake", "--workflow", "--fresh", "--preset", preset)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and spelling, of Python, C++ and prose."""
    session.install(*pinned("ruff", "clang-format", "codespell"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    kinds = {".cpp", ".hpp", ".cu", ".cuh"}
    sources = [p for top in ("csrc", "tests") for p in Path(top).rglob("*") if p.suffix in kinds]
    session.run("clang-format", "--dry-run", "--Werror", *map(str, sources))
    session.run("codespell")
    session.run("python", "tools/check_source.py")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the package, the tests and the tools."""
    session.install(*PROJECT["dependencies"], *extra("dev"))
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, on the installed package: `nox -s tests -- -k pool`."""
    session.install(".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def native(session: nox.Session) -> None:
    """The kernels without Python, plain and under sanitizers: `nox -s native -- asan`."""
    workflows(session, PRESETS)


@nox.session
def emulated(session: nox.Session) -> None:
    """The kernels without Python on CPUs of other kinds; needs QEMU and g++ for aarch64."""
    workflows(session, EMULATED)


@nox.session
def cuda(session: nox.Session) -> None:
    """CUDA: the module for all GPUs, and its kernels on an emulated device, in every mode."""
    nvcc = os.environ.get("FASTCONV_CUDA") or ("ON" if shutil.which("nvcc") else "pypi")
    wanted = [".[test,cuda13]", "--config-settings=cmake.define.FASTCONV_DEVICE_TESTS=ON"]
    wanted += ["--config-settings=build-dir=build/cuda"]  # others may build the wheel meanwhile
    session.install(*wanted, *extra("dev"), *CUDA_TOOLS, env={"FASTCONV_CUDA": nvcc})
    where = "import fastconv._cuda as module; print(module.__file__)"
    module = session.run("python", "-c", where, silent=True)
    session.run("python", "tools/check_sass.py", str(module).strip())
    for preset in EMULATOR:
        session.run("cmake", "--workflow", "--preset", preset)
    tests = [f"tests/test_{name}.py" for name in CUDA_TESTS]
    for mode in ("forward late", "reverse late", "shuffled early"):
        modes = {"FASTCONV_EMULATOR": mode, "FASTCONV_TEST_BACKENDS": "emu"}
        modes["FASTCONV_EMULATOR_BUILD"] = EMULATOR[0]
        session.run("python", "-m", "pytest", "-q", "-n2", "-k", "not cpu", *tests, env=modes)
    least = ("--fail-under-line", "95", f"build/{EMULATOR[0]}")
    session.run("gcovr", "--filter", "csrc/cuda/", *MERGED, *MANY_HITS, *least)


@nox.session
def coverage(session: nox.Session) -> None:
    """How many lines the tests run: of the kernels by the native tests, of the Python package."""
    session.install(*extra("dev"), "gcovr>=8", "pytest-cov>=6")
    session.run("cmake", "--workflow", "--preset", "coverage")
    objects = ("--gcov-exclude-directory", ".*CompilerId.*", "build/coverage")
    session.run("gcovr", "--filter", "csrc/", *MERGED, "--fail-under-line", "90", *objects)
    session.install(".[test]")
    session.run("python", "-m", "pytest", "--cov=fastconv")


@nox.session
def wheel(session: nox.Session) -> None:
    """One wheel in dist/, tried in a new environment when the build's is gone."""
    session.run("python", "-m", "pip", "wheel", ".", "--no-deps", "--wheel-dir", "dist")
    newest = max(Path("dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    session.run("python", "tools/check_wheel.py", str(newest))


@nox.session
def bench(session: nox.Session) -> None:
    """A few layers against the libraries that are installed: `nox -s bench -- --net vgg16`."""
    session.install(".[bench]")
    session.run("fastconv", "bench", *(session.posargs or ["--quick"]))
