"""What nvcc made of the kernels, without a GPU: registers, and instructions that must or must not
be there. Needs cuobjdump and nvdisasm (nvidia-cuda-cuobjdump and -nvdisasm on PyPI).

usage: check_sass.py MODULE.so
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

LOCAL_MEMORY = {"LDL", "STL"}  # spilled registers, or arrays that are indexed at run time
# What kernels must have on every target but the oldest: asynchronous copies (cp.async; cells of 16
# bits are too small for them), and tensor cores.
OLDEST = "sm_75"
REQUIRED = {
    r"^product_kernel": {"LDGSTS"},
    r"^tensor_product_kernel<(float, .*Cells|.*Chunks)": {"LDGSTS", "HMMA"},
    r"^tensor_product_kernel<.*Chunks<(Float16|BFloat16|float), true>": {"LDSM"},
    r"^tensor_product_kernel<": {"HMMA"},
    r"^wgmma_kernel<": {"HGMMA", "UTMALDG", "SYNCS"},
}


def cuobjdump(option: str, module: Path) -> list[str]:
    """The lines that cuobjdump prints, by the one on PATH or of a wheel."""
    for folder in sys.path:
        tools = Path(folder, "nvidia", "cu13", "bin")
        if (tools / "cuobjdump").is_file():
            os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"  # it calls nvdisasm
            break
    command = [shutil.which("cuobjdump") or "cuobjdump", option, str(module)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def readable(name: str) -> str:
    """The kernel's name without namespaces and arguments."""
    done = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True)
    short = re.sub(r"fastconv::(cuda::)?|\(anonymous namespace\)::|^void ", "", done.stdout.strip())
    return short.partition("(")[0]


def registers(module: Path) -> dict[tuple[str, str], int]:
    """Registers a thread by (target, kernel)."""
    found: dict[tuple[str, str], int] = {}
    target = kernel = ""
    for line in cuobjdump("-res-usage", module):
        if match := re.match(r"arch = (\S+)", line):
            target = match[1]
        elif match := re.match(r"\s*Function (\S+):", line):
            kernel = match[1]
        elif match := re.search(r"REG:(\d+)", line):
            found[target, kernel] = int(match[1])
    return found


def instructions(module: Path) -> dict[tuple[str, str], set[str]]:
    """The instructions that each (target, kernel) uses."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    target = kernel = ""
    for line in cuobjdump("-sass", module):
        if match := re.match(r"\s*arch = (\S+)", line):
            target = match[1]
        elif match := re.match(r"\s*Function : (\S+)", line):
            kernel = match[1]
        elif match := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", line):
            found[target, kernel].add(match[1])
    return found


def faults(used: dict[tuple[str, str], set[str]]) -> list[str]:
    """What is wrong, one line each."""
    found = []
    for (target, kernel), names in sorted(used.items()):
        if local := names & LOCAL_MEMORY:
            found.append(f"{readable(kernel)} for {target} uses local memory ({', '.join(local)})")
        for pattern, required in REQUIRED.items():
            if target == OLDEST or not re.search(pattern, readable(kernel)):
                continue
            if missing := required - names:
                found.append(f"{readable(kernel)} for {target} lacks {', '.join(missing)}")
    return found


def main() -> None:
    """Print the table of registers; exit with 1 where a rule is broken."""
    module = Path(sys.argv[1])
    table: dict[str, dict[str, int]] = defaultdict(dict)
    for (target, kernel), count in registers(module).items():
        table[readable(kernel)][target] = count
    targets = sorted({target for row in table.values() for target in row})
    print(f"{'registers a thread':<72}" + "".join(f"{target:>9}" for target in targets))
    for kernel, row in sorted(table.items()):
        print(f"{kernel:<72}" + "".join(f"{row.get(target, ''):>9}" for target in targets))
    used = instructions(module)
    if not used:
        sys.exit(f"{module} has no kernels")
    broken = faults(used)
    if broken:
        sys.exit("\n".join(broken))
    print(f"{len(used)} kernels: none uses local memory")


if __name__ == "__main__":
    main()
