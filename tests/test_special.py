"""SciPy's functions without the rest of SciPy: the same ones, at no cost to who wants all of it."""

import subprocess
import sys

import pytest


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_functions_come_alone_and_all_of_scipy_can_be_imported_afterwards() -> None:
    run("""
import sys
from normlab import special
assert not any(name.startswith("scipy.") for name in sys.modules)
found = special.stdtrit(4, 0.975)
assert abs(found - 2.7764451051977987) < 1e-12
assert "scipy.special" not in sys.modules and "scipy.linalg" not in sys.modules
import scipy.special
assert scipy.special.stdtrit is special.stdtrit and len(scipy.special.roots_legendre(3)) == 2
""")


@pytest.mark.parametrize(
    "circumstance",
    [
        "import scipy.special",  # imported already
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",  # may look for it
        "import sys; sys.modules['scipy.special._ufuncs'] = None",  # laid out in another way
    ],
)
def test_where_they_cannot_come_alone_all_of_it_is_imported(circumstance: str) -> None:
    missing = "_ufuncs'] = None" in circumstance
    run(f"""
{circumstance}
import sys
from normlab import special
if {missing}:
    assert special._functions_alone() is None and "scipy.special" not in sys.modules
else:
    assert special.load() is sys.modules["scipy.special"]
    assert special.ndtr(0) == 0.5
""")


def test_every_function_that_statistics_ask_for_is_there() -> None:
    run("""
import re, sys
from pathlib import Path
from normlab import special
used = {name for file in ("stats", "sequential")
        for name in re.findall(r"special\\.([a-z]+)", Path(special.__file__).with_name(f"{file}.py").read_text())}
assert len(used) > 5
for name in used:
    getattr(special, name)
assert "scipy.special" not in sys.modules
""")


def test_what_is_not_there_is_no_attribute() -> None:
    run("""
from normlab import special
try:
    special.nonsense
except AttributeError as error:
    assert "nonsense" in str(error)
else:
    raise AssertionError
""")
