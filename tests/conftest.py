"""What tests share: a cache and a store of their own, and the command line as a user calls it."""

import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a process: the tests run one process a core

if (name := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    # One core for each process of the tests and what it starts, so that a study has one worker and not one a core.
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cores[int(name.removeprefix("gw")) % len(_cores)]})

# A submission is judged on the same examples each time; at a desk every run draws new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _same_numbers(request: pytest.FixtureRequest) -> None:
    """The same for torch's random numbers, where a test has them."""
    if os.environ.get("CI") and (torch := sys.modules.get("torch")):
        torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="FILE", help="Write the table of faults with the results of this run.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties += [("fault", mark.args[0]) for mark in item.iter_markers("fault")]


_RESULTS: dict[tuple[int, str], set[str]] = {}  # of a fault and a test's name


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        name = report.nodeid.removeprefix("tests/").partition("[")[0]
        for key, number in report.user_properties:
            if key == "fault":
                _RESULTS.setdefault((int(number), name), set()).add(report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (target := session.config.getoption("--reliability")) and not hasattr(session.config, "workerinput"):
        from tests.reliability import page

        Path(target).write_text(page(_RESULTS))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded data goes to a folder of the tests, unless the caller set one."""
    if "NORMLAB_HOME" in os.environ:
        yield
        return
    os.environ["NORMLAB_HOME"] = str(tmp_path_factory.mktemp("home"))
    yield
    del os.environ["NORMLAB_HOME"]


@pytest.fixture(autouse=True)
def own_arithmetic() -> Iterator[None]:
    """A measurement prepares its process for training; other tests want theirs as it was."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture
def float64() -> Iterator[None]:
    """In which rounding is far below what is asked about."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line within this process, for what starts no training: a tenth of a process's time."""
    from normlab.cli import main

    def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main([str(argument) for argument in arguments])
        output, errors = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), output, errors)

    return run


@pytest.fixture
def normlab(tmp_path: Path) -> Run:
    """Runs the real command line in a folder of its own."""

    def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "normlab", *map(str, arguments)],
            cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300, check=False,
        )  # fmt: skip

    return run
