"""normlab: does this training choice matter, and by how much?

The public names are imported when they are first used, so that `import normlab` costs nothing and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normlab.errors import UsageError as UsageError
    from normlab.network import build_network as build_network
    from normlab.norms import build_norm as build_norm
    from normlab.notation import parse_notation as parse_notation
    from normlab.results import load_results as load_results
    from normlab.runner import run as run
    from normlab.store import Store as Store
    from normlab.study import Study as Study
    from normlab.trained import load_network as load_network
    from normlab.trial import TrialSpec as TrialSpec

_HOME = {
    "Store": "store",
    "Study": "study",
    "TrialSpec": "trial",
    "UsageError": "errors",
    "build_network": "network",
    "build_norm": "norms",
    "load_network": "trained",
    "load_results": "results",
    "parse_notation": "notation",
    "run": "runner",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'normlab' has no attribute '{name}'")
    return getattr(importlib.import_module(f"normlab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
