"""Random calls in processes of their own: a crash is reported with its seed and its last call.

FASTCONV_EXAMPLES is how many are drawn in all; .ci/run asks for 10,000. FASTCONV_SEED draws others.
The batches take turns on the instruction sets that this machine has.
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


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_calls_equal_the_oracle(batch: int, tmp_path: Path) -> None:
    seed, isas = FIRST_SEED + batch, _core.available_isas()
    isa = isas[batch % len(isas)]
    log = tmp_path / "last_call"
    program = Path(__file__).with_name("properties.py")
    count = -(-EXAMPLES // BATCHES)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", program, str(seed), str(count), log],
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
        f"FASTCONV_ISA={isa} python tests/properties.py {seed} {count} LOG "
        f"ended with {done.returncode}\n"
        f"last call: {log.read_text()}\n{done.stdout}\n{done.stderr}"
    )
