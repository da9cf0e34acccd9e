"""Optional dependencies: imported where they are used, with an error that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module_name: str, extra: str) -> ModuleType:
    """Import `module_name`, a package that `pip install "fastconv[extra]"` brings.

    Raises ModuleNotFoundError, naming that command, if the package is not installed.
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        package = module_name.partition(".")[0]
        if error.name != package:  # the package is there, but something it needs is not
            raise
        raise ModuleNotFoundError(
            f'this needs {package}, which is not installed: pip install "fastconv[{extra}]"',
            name=package,
        ) from None
