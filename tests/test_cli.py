"""The command line, end to end: a study file in, trained trials, tables and a report out; bad input in one line."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from normlab.plan import make_plan
from normlab.store import Store
from normlab.study import Study
from tests.conftest import Run
from tests.test_table import make_result

STUDY = """\
question: Does it matter?
base:
  data: digits
  split: fraction
  train_images: 200
  network: 4K-1C2B-10D
  epochs: 2
factors:
  norm: [none, batch]
  learning_rate: [1e-3, 1e-2]
seeds: 2
contrasts:
  - norm: [batch, none]
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def assert_refused(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    """One line that says what was wrong, exit code 2, no traceback, nothing on standard output."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], lines[0]


def test_a_study_goes_from_its_file_to_an_answer(study: Path, tmp_path: Path, normlab: Run, here: Run) -> None:
    plan = normlab("plan", study)
    assert plan.returncode == 0, plan.stderr
    assert "8 to train" in plan.stdout
    assert re.search(r"FLOP, about \d", plan.stdout)
    assert not (tmp_path / "normlab-store" / "trials").exists()

    done = normlab("run", study, "-j", 2)
    assert done.returncode == 0, done.stderr
    assert "trained 8 trials" in done.stderr
    assert "8 finished" in here("status", study).stdout

    again = normlab("run", study)
    assert again.returncode == 0
    assert "trained 0 trials" in again.stderr

    answer = here("report", study)
    assert answer.returncode == 0, answer.stderr
    page = tmp_path / answer.stdout.splitlines()[-1].removeprefix("report: ")
    assert "Does it matter?" in page.read_text()
    for name in (
        "arms.csv",
        "contrasts.csv",
        "results.json",
        "report.md",
        "figure-2-norm.svg",
        "figure-1-learning-rate.png",
    ):
        assert (page.parent / name).stat().st_size > 100, name

    numbers = json.loads(here("compare", study, "--json").stdout)
    assert [arm["n"] for arm in numbers["arms"]] == [2, 2, 2, 2]
    rows = list(csv.DictReader(io.StringIO(here("compare", study, "--csv", "contrasts").stdout)))
    assert len(rows) == 2


def test_a_trial_that_another_study_trained_is_not_trained_again(study: Path, tmp_path: Path, here: Run) -> None:
    store = Store(tmp_path / "normlab-store")
    store.require_writable()
    for trial in make_plan(Study.load(study, overrides=["norm=batch", "learning_rate=1e-3"]), store).trials:
        store.save(make_result(trial.id, trial.spec, 0.5))
    other = tmp_path / "other.yaml"
    other.write_text(STUDY.replace("seeds: 2", "seeds: 3").replace("  learning_rate: [1e-3, 1e-2]\n", ""))
    arms = json.loads(here("plan", other, "--json").stdout)["arms"]
    assert sum(arm["finished"] for arm in arms) == 2  # the default learning rate is 1e-3
    assert sum(arm["missing"] for arm in arms) == 4


def test_one_trial_is_the_same_alone_and_from_another_number_of_workers(tmp_path: Path, normlab: Run) -> None:
    settings = ["data=digits", "split=fraction", "train_images=200", "network=4K-1C2B-10D", "norm=batch", "epochs=2"]
    first = json.loads(normlab("train", *settings, "--json", "--store", "a").stdout)
    second = json.loads(normlab("train", *settings, "--json", "--store", "b").stdout)
    assert first == second
    assert first["status"] == "finished"
    assert (tmp_path / "a" / "trials" / first["id"] / "model.safetensors").exists()


@pytest.mark.slow  # tests/test_train.py holds it step by step
def test_a_cohort_gives_the_results_of_trials_trained_alone(study: Path, normlab: Run, here: Run) -> None:
    alone = normlab("run", study, "--store", "alone")
    together = normlab("run", study, "--store", "together", "--cohort", 4)
    assert alone.returncode == together.returncode == 0, together.stderr
    tables = [json.loads(here("compare", study, "--json", "--store", s).stdout) for s in ("alone", "together")]
    for one, other in zip(tables[0]["arms"], tables[1]["arms"], strict=True):
        assert one["mean"] == pytest.approx(other["mean"], abs=0.02)


def start(study: Path, *arguments: str) -> "subprocess.Popen[str]":
    """A run that hears Ctrl-C, also where these tests were started in the background, which does not."""
    return subprocess.Popen(
        [sys.executable, "-m", "normlab", "run", str(study), *arguments],
        cwd=study.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def test_an_interrupt_while_modules_load_is_one_line(tmp_path: Path, normlab: Run) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'normlab.cli':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    done = normlab("--help", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "normlab: interrupted\n")


def wait_for_results(store: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if store.exists() and sum(not p.name.startswith(".") for p in store.iterdir()) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no results appeared")


@pytest.mark.slow
@pytest.mark.fault(4)
def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(
    study: Path, tmp_path: Path, normlab: Run, here: Run
) -> None:
    process = start(study, "seeds=2", "epochs=20", "--cohort", "2")
    wait_for_results(tmp_path / "normlab-store" / "trials", 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list((tmp_path / "normlab-store" / "running").iterdir()) == []
    assert not [p for p in (tmp_path / "normlab-store" / "trials").iterdir() if p.name.startswith(".")]

    half = here("report", study, "seeds=2", "epochs=20")
    assert half.returncode == 0
    assert "missing" in half.stdout

    done = json.loads(normlab("run", study, "seeds=2", "epochs=20", "--json").stdout)
    assert done["already_finished"] >= 2
    assert done["already_finished"] + done["trained"] == 8


@pytest.mark.slow
@pytest.mark.fault(5)
@pytest.mark.fault(23)
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the worker through /proc")
def test_a_trial_whose_worker_is_killed_is_tried_again_once_and_then_fails_alone(
    study: Path, tmp_path: Path, normlab: Run, here: Run
) -> None:
    process = start(study, "seeds=1", "epochs=30", "-j", "1", "--cohort", "1")
    trials = tmp_path / "normlab-store" / "trials"
    wait_for_results(trials, 1)
    killed = kill_worker(process)
    while (again := worker_of(process)) in (None, killed):
        time.sleep(0.01)
    wait_for_claim(tmp_path / "normlab-store")
    kill_worker(process, again)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "SIGKILL (out of memory?) (2 tries)" in errors
    assert "trained 3 trials" in errors
    assert "1 failed" in here("status", study, "seeds=1", "epochs=30").stdout
    assert normlab("run", study, "seeds=1", "epochs=30").returncode == 0
    assert "4 finished" in here("status", study, "seeds=1", "epochs=30").stdout


def worker_of(process: "subprocess.Popen[str]") -> int | None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[-1]) if children else None


def kill_worker(process: "subprocess.Popen[str]", pid: int | None = None) -> int:
    pid = pid or worker_of(process)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_for_claim(store: Path) -> None:
    while not list(store.glob("running/*.json")):
        time.sleep(0.01)


@pytest.mark.fault(21)
def test_a_trial_that_diverges_is_a_result_and_counts_at_chance(study: Path, normlab: Run, here: Run) -> None:
    settings = ["norm=none", "learning_rate=100", "epochs=5", "optimizer=sgd"]
    done = normlab("run", study, *settings)
    assert done.returncode == 0, done.stderr
    assert "2 diverged" in done.stderr
    (arm,) = json.loads(here("compare", study, *settings, "--json").stdout)["arms"]
    assert arm["diverged"] == 2
    assert arm["mean"] == pytest.approx(0.1)


BAD_OVERRIDES = [
    (["epochs=0"], ["epochs", "≥ 1"]),
    (["batchsize=4"], ["'batchsize'", "did you mean 'batch_size'?"]),
    (["norm=bacth"], ["'bacth'", "did you mean 'batch'?"]),
    (["network=4K-1C4B-10D"], ["down to 1×1 in block 4", "at most 1C3B"]),
    (["network=4K-1C2B-7D"], ["override 'network'", "7 outputs", "10 classes", "4K-1C2B-10D"]),
    (["batch_size=1000"], ["batch_size 1000", "200 training images"]),
    (["data=didgits"], ["'didgits'", "did you mean 'digits'?"]),
    (["data=folder:absent.zip"], ["absent.zip", "not found"]),
    (["split=official"], ["official", "fraction"]),
    (["train_images=9999"], ["train_images", "9,999"]),
    (["norm=batch", "norm_dense=true", "train_images=33", "network=4K-1C2B-8D-10D"], ["two", "batch_size", "dense1"]),
    (["--scale", "big"], ["scale 'big'", "the study has none"]),
    (["--device", "tpu"], ["'tpu'", "cpu"]),
    (["--device", "mps"], ["'mps'", "float64", "--device cpu"]),
    (["-j", "0"], ["0", "1<=x"]),
    (["--wrokers", "2"], ["--wrokers", "--workers"]),
]


@pytest.mark.fault(25)
@pytest.mark.fault(38)
@pytest.mark.parametrize(("arguments", "words"), BAD_OVERRIDES)
def test_bad_input_to_a_run_is_one_line_and_exit_code_2(
    study: Path, tmp_path: Path, here: Run, arguments: list[str], words: list[str]
) -> None:
    assert_refused(here("run", study, *arguments), *words)
    trials = tmp_path / "normlab-store" / "trials"
    assert not trials.exists() or not list(trials.iterdir())


@pytest.mark.fault(18)
@pytest.mark.fault(38)
def test_bad_input_elsewhere_is_one_line_too(study: Path, tmp_path: Path, here: Run) -> None:
    assert_refused(here("rnu", study), "'rnu'", "did you mean 'run'?")
    assert_refused(here("run", "absent.yaml"), "absent.yaml", "quickstart")
    assert_refused(here("run"), "STUDY")
    assert_refused(here("show", "64K-4C3B-256-10D"), "'256'", "did you mean '256D'?")
    assert_refused(here("show", "8K-1C1B-10D", "--to", "picture.bmp"), ".svg")
    assert_refused(here("data", "show", "cifra10"), "did you mean 'cifar10'?")
    offline = here("data", "fetch", "cifar10", NORMLAB_OFFLINE="1", NORMLAB_DATA=".", NORMLAB_HOME="home")
    assert_refused(offline, "NORMLAB_OFFLINE", "put it")
    assert_refused(here("train", "data=digits"), "'network' is missing")
    (tmp_path / "locked").write_text("a file, not a folder")
    assert_refused(here("run", study, "--store", "locked"), "--store locked", "a folder")
    assert_refused(here("status", study, "--store", "nowhere"), "--store nowhere", "no such folder")
    assert_refused(here("report", study, "--store", "/etc"), "--store /etc", "is no store")
    assert_refused(here("plan", study, "--store", ""), "--store", "write a folder")
    assert_refused(here("run", study, "--store", "unused", "--device", "cuda:99"), "--device cpu")
    assert not (tmp_path / "unused").exists()
    assert_refused(here("paper", "run", "--scale", "lap"), "scale 'lap'", "laptop")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert_refused(here("run", "binary.yaml"), "UTF-8")


@pytest.mark.fault(38)
def test_no_terminal_and_no_argument_is_a_traceback(study: Path, tmp_path: Path, normlab: Run, here: Run) -> None:
    ascii_only = normlab("status", study, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    assert ascii_only.returncode == 0, ascii_only.stderr
    table = normlab("show", "8K-1C1B-10D", PYTHONIOENCODING="ascii")
    assert table.returncode == 0, table.stderr
    assert "8\\xd732\\xd732" in table.stdout
    closed = subprocess.run(
        f'"{sys.executable}" -m normlab settings >&-',
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (closed.returncode, closed.stderr) == (0, "")
    assert_refused(here("run", study, "norm=\udcff"), "not text in UTF-8")
    (tmp_path / "a file").write_text("")
    assert_refused(here("status", study, NORMLAB_STORE="a file"), "NORMLAB_STORE=a file", "is a file")
    assert_refused(here("status", study, NORMLAB_STORE="typo"), "NORMLAB_STORE=typo", "no such folder")


def test_what_files_say_is_shown_and_never_obeyed(study: Path, tmp_path: Path, here: Run) -> None:
    from normlab.terminal import table_text

    assert table_text([{"class": "a\x1b[2J\nb [red]"}]).splitlines()[1].strip() == r"a\x1b[2J\nb [red]"
    plan = json.loads(here("plan", study, "--json").stdout)
    trial = next(iter(plan["trials"]))
    (tmp_path / "normlab-store" / "failed").mkdir(parents=True)
    (tmp_path / "normlab-store" / "failed" / f"{trial}.json").write_text(json.dumps({"reason": "\x1b[2J\nline"}))
    assert here("status", study).stdout.splitlines()[-1] == rf"failed {trial}: \x1b[2J\nline"


def test_help_status_and_report_import_neither_torch_nor_matplotlib_and_help_is_instant(
    study: Path, tmp_path: Path
) -> None:
    probe = (
        "import sys; from normlab.cli import commands\n"
        "try: commands.main(sys.argv[1:], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'matplotlib'} & sys.modules.keys()) or 0)"
    )
    for arguments in (["--help"], ["status", study], ["report", study], ["compare", study], ["run", "--help"]):
        command = [sys.executable, "-c", probe, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, (arguments, done.stderr.decode())
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "normlab", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.4


@pytest.mark.fault(41)
def test_damaged_curves_cost_a_line_and_their_place_in_the_figure_and_no_number(
    study: Path, tmp_path: Path, here: Run, normlab: Run
) -> None:
    assert here("run", study).returncode == 0
    before = here("compare", study).stdout
    path = next((tmp_path / "normlab-store" / "trials").glob("*/details.json"))
    path.write_text("{}")
    done = normlab("report", study, "--to", "report")
    assert done.returncode == 0
    assert done.stderr.startswith(f"normlab: left out: {path.relative_to(tmp_path)} is damaged: ")
    assert done.stderr.endswith("; normlab store check finds all such\n")
    assert done.stdout.startswith(before)
    assert "Of 1 trial the curves are damaged" in (tmp_path / "report" / "report.md").read_text()


def test_a_reader_that_has_seen_enough_still_gets_the_report(study: Path, tmp_path: Path) -> None:
    (tmp_path / "normlab-store" / "trials").mkdir(parents=True)
    many = ",".join(f"{i}e-6" for i in range(1, 500))  # more lines than a pipe holds
    command = f'"{sys.executable}" -m normlab report "{study}" learning_rate={many} --to report | head -c 1'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "s", "")
    assert (tmp_path / "report" / "report.html").exists()


def test_a_run_whose_messages_nobody_reads_any_more_is_no_success(study: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "normlab", "run", str(study)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=write,
        check=False,
    )
    os.close(write)
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_an_answer_that_cannot_be_printed_is_said_of_the_output_and_costs_no_report(
    study: Path, tmp_path: Path
) -> None:
    (tmp_path / "normlab-store" / "trials").mkdir(parents=True)
    command = [sys.executable, "-m", "normlab", "report", str(study), "--to", "report"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "normlab: output: No space left on device\n")
    assert (tmp_path / "report" / "report.html").exists()


def test_show_prints_the_papers_sizes_and_draws_the_network(tmp_path: Path, here: Run) -> None:
    done = here("show", "64K-4C3B-256D-Dropout0.5-10D", "norm=batch", "--to", "network.svg")
    assert done.returncode == 0, done.stderr
    assert "3,749,578 parameters; 380.3 MMAC" in done.stdout
    assert (tmp_path / "network.svg").read_text().count("<svg") == 1


def test_lists_are_printed_for_people_and_for_machines(here: Run) -> None:
    assert "quickstart" in here("studies").stdout
    assert "learning_rate" in here("settings").stdout
    assert "digits" in here("data", "list").stdout
    for arguments in (["studies"], ["settings"], ["data", "list"], ["data", "show", "digits"]):
        assert json.loads(here(*arguments, "--json").stdout)


def test_a_picture_of_samples_can_be_drawn(tmp_path: Path, here: Run) -> None:
    assert here("data", "show", "digits", "--to", "digits.png").returncode == 0
    assert (tmp_path / "digits.png").stat().st_size > 5_000


def test_what_was_planned_and_is_not_among_the_levels_is_said_before_and_while_it_runs(normlab: Run) -> None:
    settings = ["quickstart", "norm=batch,renorm", "learning_rate=1e-3", "seeds=1", "epochs=1", "train_images=64"]
    assert "note: planned, but not among these levels: norm: batch − none\n" in normlab("plan", *settings).stdout
    assert "note: planned, but not among these levels: norm: batch − none\n" in normlab("run", *settings).stderr
