"""Check a built wheel: its files, and that it works in a new environment with NumPy alone.

python tools/check_wheel.py dist/fastconv-*.whl
"""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
REQUIRED = (
    "fastconv/__init__.py",
    "fastconv/_core.pyi",
    "fastconv/bench/problems.json",
    "fastconv/data/LICENSE-mnist-sample.txt",
    "fastconv/data/mnist_sample.npz",
    "fastconv/libfastconv_openblas.so",
    "fastconv/py.typed",
    "licenses/LICENSE",
    "licenses/licenses/openblas.txt",
    "licenses/python/fastconv/data/LICENSE-mnist-sample.txt",
)
SUFFIXES = {".json", ".npz", ".py", ".pyi", ".so", ".txt", ".typed"}


def check_files(wheel: Path) -> None:
    """Nothing missing, nothing that belongs to the sources or to the machine that built it."""
    with zipfile.ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if not name.endswith("/")]
        missing = [end for end in REQUIRED if not any(name.endswith(end) for name in files)]
        package = [name for name in files if name.startswith("fastconv/")]
        strange = [name for name in package if Path(name).suffix not in SUFFIXES]
        strange += [name for name in files if name.split("/")[0].partition("-")[0] != "fastconv"]
        tied = [name for name in files if str(TOOLS.parent).encode() in archive.read(name)]
    if missing or strange or tied:
        sys.exit(f"{wheel.name}: {missing=}, {strange=}, names the source folder: {tied}")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {len(files)} files")


def check_use(wheel: Path) -> None:
    """Install into a new environment, leave the source folder, and compute."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder, "venv"), with_pip=True)
        python = str(Path(folder, "venv", "bin", "python"))
        install = [python, "-m", "pip", "install", "--quiet", str(wheel)]
        smoke = [python, "-I", str(TOOLS / "wheel_smoke.py")]  # -I: nothing but its environment
        for command in (install, smoke):
            subprocess.run(command, cwd=folder, check=True)


if __name__ == "__main__":
    path = Path(sys.argv[1]).resolve()
    check_files(path)
    check_use(path)
