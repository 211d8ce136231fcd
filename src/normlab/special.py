"""SciPy's special functions, such as `special.stdtr`, without the rest of SciPy.

To import `scipy.special` takes a quarter of a second, eight times as long as the functions alone: it brings linear
algebra and what serves other array libraries. `compare` and `report` would begin with that.
"""

import functools
import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    found = getattr(load(), name, None) or getattr(importlib.import_module("scipy.special"), name)
    globals()[name] = found  # the next time it is here
    return found


@functools.cache
def load() -> ModuleType:
    """What has the functions. Called beforehand, it takes its time then."""
    return _functions_alone() or importlib.import_module("scipy.special")


def _functions_alone() -> ModuleType | None:
    """The compiled functions under an empty package, which is gone afterwards so that all that is public in
    `scipy.special` can still be imported. None where that was imported already, cannot be parted, or another thread
    might look for it."""
    package = "scipy.special"
    spec = importlib.util.find_spec(package)
    if spec is None or package in sys.modules or threading.active_count() > 1:
        return None
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module(f"{package}._ufuncs")
    except ImportError:  # another SciPy, laid out in another way
        return None
    finally:
        del sys.modules[package]
