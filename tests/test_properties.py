"""Random calls in processes of their own: a crash is reported with its seed and its last call.

FASTCONV_EXAMPLES is how many hypothesis draws in all; .ci/run asks for 10,000. Of calls on arrays
that lie anywhere in memory, and of calls that a limit may refuse, there are half as many.
FASTCONV_SEED draws others. The batches take turns on the instruction sets that this machine has.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checks import FIRST_SEED
from fastconv import _core

BATCHES = 10
EXAMPLES = int(os.environ.get("FASTCONV_EXAMPLES", "1000"))
ISAS = _core.available_isas()


def run(program: str, isa: str, seed: int, count: int, log: Path) -> None:
    """Run a program, which has to draw and check at least so many examples."""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-X", "faulthandler"),
            *(Path(__file__).with_name(program), str(seed), str(count), log),
        ],
        env={**os.environ, "FASTCONV_ISA": isa},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode == 0:
        assert int(done.stdout) >= count
        return
    pytest.fail(
        f"FASTCONV_ISA={isa} python tests/{program} {seed} {count} LOG "
        f"ended with {done.returncode}\n"
        f"last call: {log.read_text()}\n{done.stdout}\n{done.stderr}"
    )


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_calls_equal_the_oracle(batch: int, tmp_path: Path) -> None:
    isa = ISAS[batch % len(ISAS)]
    run("properties.py", isa, FIRST_SEED + batch, -(-EXAMPLES // BATCHES), tmp_path / "last_call")


@pytest.mark.parametrize("turn", range(len(ISAS)))
@pytest.mark.parametrize("program", ["views.py", "limits.py"])
def test_arrays_may_lie_anywhere_and_refused_calls_write_nothing(
    program: str, turn: int, tmp_path: Path
) -> None:
    count = -(-EXAMPLES // 2 // len(ISAS))
    first = 1000 * FIRST_SEED + turn * count
    run(program, ISAS[turn], first, count, tmp_path / "last_call")
