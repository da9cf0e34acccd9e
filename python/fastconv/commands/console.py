"""What every command says on the terminal in the same way."""

from __future__ import annotations

import sys


def print_error(error: Exception) -> None:
    """One line on standard error: which file, where the system names one, and what is wrong."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    else:
        message = " ".join(str(error).split()) or type(error).__name__
    print(f"fastconv: error: {message}", file=sys.stderr)
