"""Random calls in processes of their own: a crash is reported with its seed and its last call.

FASTCONV_EXAMPLES is how many are drawn in all; .ci/run asks for 10,000.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BATCHES = 10
EXAMPLES = int(os.environ.get("FASTCONV_EXAMPLES", "1000"))


@pytest.mark.parametrize("seed", range(BATCHES))
def test_random_calls_equal_the_oracle(seed: int, tmp_path: Path) -> None:
    log = tmp_path / "last_call"
    program = Path(__file__).with_name("properties.py")
    count = -(-EXAMPLES // BATCHES)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", program, str(seed), str(count), log],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode == 0:
        assert int(done.stdout) >= count
        return
    pytest.fail(
        f"python tests/properties.py {seed} {count} LOG ended with {done.returncode}\n"
        f"last call: {log.read_text()}\n{done.stdout}\n{done.stderr}"
    )
