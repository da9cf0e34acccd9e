"""All that must hold before a change lands: two lanes of steps beside each other, then a table.

What a step prints is shown whole when the step has ended. The steps of a lane follow each other:
those of the first share the objects in build/wheel, which pip compiles in its first step.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EMULATORS = ("qemu-x86_64", "qemu-aarch64", "aarch64-linux-gnu-g++")
PACKAGES = "qemu-user g++-aarch64-linux-gnu libc6-dev-arm64-cross"
ENVIRONMENT = {
    **os.environ,
    "CMAKE_BUILD_PARALLEL_LEVEL": "2",
    "DEBIAN_FRONTEND": "noninteractive",
    "FASTCONV_EXAMPLES": "10000",  # random calls of tests/test_properties.py
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PYTHONUNBUFFERED": "1",
}
SHOWING = threading.Lock()


class Step:
    """A command line of bash, and what became of it."""

    def __init__(self, title: str, command: str, **environment: str) -> None:
        self.title, self.command, self.environment = title, command, environment
        self.result, self.wall, self.cpu = "not run", 0.0, 0.0

    def run(self) -> None:
        """Run it, show its output, keep its times."""
        start = time.monotonic()
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self.command],
                cwd=ROOT,
                env={**ENVIRONMENT, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read().decode(errors="replace")
        self.wall, self.cpu = time.monotonic() - start, usage.ru_utime + usage.ru_stime
        self.result = "FAILED" if process.returncode else "passed"
        if not process.returncode and text.startswith("SKIPPED"):
            self.result = "skipped"
        with SHOWING:
            print(f"\n=== {self.title}\n$ {self.command}\n{text.rstrip()}")
            print(f"=== {self.title}: {self.result}, {self.wall:.0f} s", flush=True)


def readme(words: str, venv: Path) -> str:
    """The command line of README.md that has these words, with this environment for .venv."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    command = next(line for line in lines if words in line)
    return command.replace(".venv", shlex.quote(str(venv)))


def emulated(preset: str, nox: str) -> str:
    """The native tests on this emulated CPU; where its tools are not here, a line that says so."""
    missing = [name for name in EMULATORS if not shutil.which(name)]
    if missing:
        return f"echo 'SKIPPED: lacks {', '.join(missing)}, and apt-get could not bring them'"
    return f"{nox} -s emulated -- {preset}"


def lanes(work: Path) -> list[list[Step]]:
    """The steps, once nox and the emulators are here."""
    program = str(work / "tools" / "bin" / "nox")  # a lane has its own environments
    nox, other_nox = (shlex.join([program, "--envdir", str(work / n)]) for n in ("nox1", "nox2"))
    strict = {"SKBUILD_CMAKE_DEFINE": "FASTCONV_WERROR=ON"}  # as the preset "released" has it
    train, test = (readme(words, work / "venv") for words in ("/fastconv train", "-m pytest"))
    return [
        [
            Step("README: install and train", train, **strict),
            Step("README: install and test", test, **strict),
            Step("wheel", f"{nox} -s wheel", **strict),
            Step("native tests", f"{nox} -s native -- released"),
            Step("native tests, emulated x86-64-v2", emulated("nehalem", nox)),
        ],
        [
            Step("lint", f"{other_nox} -s lint"),
            Step("types", f"{other_nox} -s types"),
            Step("native tests, emulated aarch64", emulated("aarch64", other_nox)),
            Step("native tests, ThreadSanitizer", f"{other_nox} -s native -- tsan"),
            Step("native tests, AddressSanitizer", f"{other_nox} -s native -- asan"),
            Step("CUDA module; its kernels on an emulated device", f"{other_nox} -s cuda"),
        ],
    ]


def prepare(work: Path) -> Step:
    """Bring nox, and from Debian what emulates other CPUs, if it is not here."""
    tools = shlex.quote(str(work / "tools"))
    command = f"python3 -m venv {tools} && {tools}/bin/pip install --quiet nox"
    if any(not shutil.which(name) for name in EMULATORS) and os.geteuid() == 0:
        install = f"apt-get -qq update && apt-get -qq install -y {PACKAGES} >/dev/null"
        command += f"\ntimeout 300 bash -c '{install}' || echo 'apt-get failed'"
    return Step("tools", command)


def table(steps: list[Step]) -> str:
    """What each step came to and took."""
    rows = [f"{'step':<48}{'result':>8}{'seconds':>9}{'of CPUs':>9}"]
    for step in steps:
        rows.append(f"{step.title:<48}{step.result:>8}{step.wall:>9.0f}{step.cpu:>9.0f}")
    return "\n".join(rows)


def main() -> None:
    """Run everything, whatever fails; exit with 1 where something did."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        steps = [prepare(Path(folder))]
        steps[0].run()
        both = lanes(Path(folder))
        threads = [
            threading.Thread(target=lambda lane=lane: [step.run() for step in lane])
            for lane in both
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    steps += [step for lane in both for step in lane]
    print(f"\n{table(steps)}\n")
    failed = [step.title for step in steps if step.result not in ("passed", "skipped")]
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")
    print(f"all passed in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
