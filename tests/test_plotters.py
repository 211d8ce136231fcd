"""Plotters: figures drawn by other processes are those drawn here, and what goes wrong there is said here."""

import subprocess
import sys
from pathlib import Path

import pytest

from normlab.drawing import draw_factor
from normlab.errors import UsageError
from normlab.figures import factor_figure
from normlab.pictures import picture
from normlab.plotters import KINDS, plot
from normlab.processes import cores
from tests.test_figures import make_table

FIGURE = "matplotlib.figure:Figure"  # of a size, of which None is the default


def test_a_plotter_writes_the_bytes_that_are_drawn_here(tmp_path: Path) -> None:
    data = factor_figure(make_table(tmp_path), "learning_rate")
    drawn = [plot(tmp_path / f"figure-{i}", "normlab.drawing:draw_factor", data) for i in range(2 * cores())]
    for i, svg in enumerate(drawn):
        assert svg.result() == (tmp_path / f"figure-{i}.svg").read_bytes()
        for kind in KINDS:
            assert (tmp_path / f"figure-{i}{kind}").read_bytes() == picture(draw_factor(data), kind)


@pytest.mark.parametrize(
    ("draw", "data", "error", "message"),
    [
        ("normlab.drawing:no_such", "", AttributeError, "no_such"),
        ("normlab.datasets:load", "nowhere", UsageError, "nowhere"),
        ("builtins:print", "what is printed is no answer", AttributeError, "NoneType"),
    ],
)
def test_what_a_plotter_raises_is_raised_here(
    tmp_path: Path, draw: str, data: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plot(tmp_path / "figure", draw, data).result()
    assert not list(tmp_path.iterdir())


def test_a_figure_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        plot(tmp_path / "absent" / "figure", FIGURE, None).result()


def test_a_figure_is_written_where_this_process_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        drawn = [plot(Path(f"figure-{i}"), FIGURE, None) for i in range(2 * cores())]
        assert all(svg.result() == Path(f"figure-{i}.svg").read_bytes() for i, svg in enumerate(drawn))


def test_a_plotter_that_dies_is_named_and_the_next_figure_is_drawn_by_another(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"figure: the process that drew it has ended; .* Run it again"):
        plot(tmp_path / "figure", "os:_exit", 3).result()
    drawn = [plot(tmp_path / f"figure-{i}", FIGURE, None) for i in range(2 * cores())]
    assert all(b"<svg" in svg.result() for svg in drawn)


def test_plotters_that_cannot_start_say_so(tmp_path: Path) -> None:
    program = (
        "import pathlib; from normlab import plotters; plotters._SERVER = 'raise SystemExit(7)'\n"
        f"plotters.plot(pathlib.Path({str(tmp_path / 'figure')!r}), {FIGURE!r}, None).result()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "the process that draws them cannot start (it ended with 7)" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not tell who forked whom")
def test_plotters_and_a_fork_server_that_died_idle_are_replaced(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, signal, time
from normlab import plotters
from normlab.processes import process_start

def draw(name):
    return plotters.plot(pathlib.Path({str(tmp_path)!r}) / name, {FIGURE!r}, None).result()

def end(pids):
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        while process_start(pid):
            time.sleep(0.01)

def family():
    server = plotters._server.process.pid
    return server, [int(pid) for pid in pathlib.Path(f"/proc/{{server}}/task/{{server}}/children").read_text().split()]

first = draw("first")
before, children = family()
end(children)
assert draw("second") == first
server, children = family()
assert server == before
end([server, *children])
assert draw("third") == first
assert family()[0] != server
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_plotters_end_when_their_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, time; from normlab.plotters import plot, start; start()\n"
        f"plot(pathlib.Path({str(tmp_path / 'figure')!r}), {FIGURE!r}, None).result()\n"
        "print('drawn', flush=True); time.sleep(60)"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "drawn\n"
        process.kill()
        assert process.communicate(timeout=20) == ("", "")  # the end comes when no plotter holds stderr any more
