"""Faults caused for real: processes killed, stopped and starved, disks filled. What is finished stays."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from normlab.plan import make_plan
from normlab.pool import Pool
from normlab.processes import process_identity, process_start
from normlab.runner import run
from normlab.signals import delayed, undisturbed
from normlab.store import Store
from normlab.study import Study
from tests.conftest import Run
from tests.test_cli import kill_worker, wait_for_claim, worker_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc, and limits them")

STUDY = """\
question: Does it survive?
base:
  data: digits
  split: fraction
  train_images: 400
  network: 6K-2C2B-16D-Dropout0.5-10D
  epochs: 14
factors:
  norm: [batch, renorm]
seeds: 6
"""
COHORT = ("--cohort", "3", "--checkpoint-seconds", "0.2", "--save-weights")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def start(study: Path, *arguments: object, limit: Callable[[], None] = lambda: None) -> "subprocess.Popen[str]":
    """A run in the background that hears Ctrl-C; `limit` is called in it before it begins."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        limit()

    return subprocess.Popen(
        [sys.executable, "-m", "normlab", "run", str(study), *map(str, arguments)],
        cwd=study.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=prepare,
    )  # fmt: skip


def fingerprints(store: Path) -> dict[str, Any]:
    """What two stores of the same study must share: metrics, curves, confusion and weights, hash by hash."""
    found = {}
    for path in sorted(store.glob("trials/[!.]*/result.json")):
        tree = json.loads(path.read_text())
        found[tree["id"]] = (tree["status"], tree["metrics"], tree["files"])
    return found


def assert_clean(store: Path) -> None:
    assert list(store.glob("running/*")) == []
    assert [path for path in store.glob("trials/.*") if ".damaged" not in path.name] == []
    assert list(store.glob("checkpoints/*")) == []


# Kills


def soak(study: Path, normlab: Run, kills: int, seed: int, seeds: int = 6) -> None:
    """Kills runners and workers at random instants until so many are done; then the store is that of a quiet run."""
    quiet, stormy, arguments = study.parent / "quiet", study.parent / "stormy", (f"seeds={seeds}", *COHORT)
    assert normlab("run", study, *arguments, "--store", quiet).returncode == 0
    draw, done = random.Random(seed), 0
    while done < kills:
        process = start(study, *arguments, "--store", stormy)
        time.sleep(draw.uniform(0.3, 5.0))
        if process.poll() is None:
            worker = worker_of(process)
            if worker is not None and draw.random() < 0.3:
                kill_worker(process, worker)
                time.sleep(draw.uniform(0.0, 1.0))
            process.kill()
            done += 1
        else:  # all is done: what is left of the kills begins anew
            assert fingerprints(stormy) == fingerprints(quiet)
            stormy = study.parent / f"stormy{len(list(study.parent.glob('stormy*')))}"
        process.communicate()
    last = normlab("run", study, *arguments, "--store", stormy)
    assert last.returncode == 0, last.stderr
    assert fingerprints(stormy) == fingerprints(quiet)
    assert len(fingerprints(quiet)) == 2 * seeds
    assert normlab("store", "check", "--repair", "--store", stormy).returncode == 0  # a kill may come before renaming
    assert_clean(stormy)


@pytest.mark.slow
@pytest.mark.fault(1)
@pytest.mark.fault(5)
def test_a_study_killed_at_random_instants_ends_as_an_undisturbed_one_hash_by_hash(study: Path, normlab: Run) -> None:
    soak(study, normlab, kills=2, seed=int.from_bytes(os.urandom(4)) if not os.environ.get("CI") else 0, seeds=3)


@pytest.mark.slow
@pytest.mark.fault(1)
def test_a_study_killed_at_fifty_random_instants_ends_as_an_undisturbed_one(study: Path, normlab: Run) -> None:
    soak(study, normlab, kills=50, seed=1)


@pytest.mark.fault(2)
@pytest.mark.parametrize("what", ["result", "checkpoint"])
def test_a_kill_between_writing_and_renaming_leaves_what_was_there_before(tmp_path: Path, what: str) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.test_faults import write_one\n"
        "write_one(Path(sys.argv[1]), sys.argv[2], 1)\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_one(Path(sys.argv[1]), sys.argv[2], 2)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, tmp_path, what], cwd=Path(__file__).parent.parent, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.rglob(".new-*"))) == 1
    if what == "result":
        from tests.test_store import make_result

        store = Store(tmp_path)
        assert store.load(make_result(1).id, details=True) is not None
        assert store.load(make_result(2).id) is None
    else:
        from tests.test_checkpoint import resumed
        from tests.test_train import spec

        warnings: list[str] = []
        assert resumed([spec(epochs=2)], tmp_path / "c", warnings)[1] == spec().batch_size
        assert warnings == []


def write_one(folder: Path, what: str, number: int) -> None:
    """A result of its own, or a checkpoint after so many steps."""
    from normlab.train import train
    from normlab.watch import Stopped
    from tests.test_store import make_result
    from tests.test_train import CPU, make_split, spec

    if what == "result":
        store = Store(folder)
        store.require_writable()
        store.save(make_result(number))
        return
    steps = iter(range(number))
    with contextlib.suppress(Stopped):
        train([spec(epochs=2)], make_split(), device=CPU, checkpoint=folder / "c", checkpoint_seconds=1e9,
              is_over=lambda: next(steps) == number - 1)  # fmt: skip


@pytest.mark.fault(4)
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_saves_where_training_stands_and_a_second_one_does_no_harm(
    study: Path, stop: signal.Signals, code: int
) -> None:
    store = study.parent / "normlab-store"
    arguments = ("seeds=1", "norm=batch", "epochs=4000", "--checkpoint-seconds", "2")
    process = start(study, *arguments)
    while (saved := newest_checkpoint(store)) == 0:  # it trains
        time.sleep(0.01)
    time.sleep(0.6)  # some steps, and no checkpoint of the clock's is due
    process.send_signal(stop)
    time.sleep(0.05)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert code != 130 or "interrupted at 0 of 1 trials; " in errors
    assert newest_checkpoint(store) > saved
    assert list(store.glob("running/*")) == []


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is heard, also where these tests were started in the background, which does not hear it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_a_second_interrupt_does_not_wait() -> None:
    done = []

    def interrupted_again_and_again() -> None:
        with delayed():
            for i in range(3):
                signal.raise_signal(signal.SIGINT)
                done.append(i)

    with pytest.raises(KeyboardInterrupt):
        interrupted_again_and_again()
    assert done == [0]


@pytest.mark.fault(4)
@pytest.mark.usefixtures("heard")
def test_while_a_run_ends_in_order_a_first_interrupt_waits_and_a_second_one_is_not_heard() -> None:
    done = []

    def ended(*, after_one: bool) -> None:
        try:
            if after_one:
                raise SystemExit(0)
        finally:
            with undisturbed():
                signal.raise_signal(signal.SIGINT)
                done.append(after_one)

    with pytest.raises(KeyboardInterrupt):
        ended(after_one=False)
    with pytest.raises(SystemExit):
        ended(after_one=True)
    assert done == [False, True]


@pytest.mark.fault(4)
@pytest.mark.usefixtures("heard")
def test_an_interrupt_while_results_are_written_waits_for_them(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(store: Store, results: object) -> None:
        signal.raise_signal(signal.SIGINT)
        save_all(store, results)

    save_all, store = Store.save_all, Store(study.parent / "store")
    monkeypatch.setattr(Store, "save_all", interrupted)
    few = Study.load(study, overrides=["epochs=1", "seeds=2", "norm=batch"])
    with pytest.raises(KeyboardInterrupt):
        run(few, store=store, workers=1, cohort=1)
    assert len(store.ids()) >= 1  # and the second, if it ended meanwhile
    assert list(store.root.glob("running/*")) == []


@pytest.mark.fault(4)
@pytest.mark.usefixtures("heard")
def test_what_another_worker_has_finished_when_an_interrupt_comes_is_stored_too(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools, finished, save_all, store = list[Pool](), list[int](), Store.save_all, Store(study.parent / "store")

    def watched(device: str) -> Pool:
        pools.append(Pool(device))
        return pools[-1]

    def interrupted(store: Store, results: object) -> None:
        save_all(store, results)
        signal.raise_signal(signal.SIGINT)
        until = time.monotonic() + 30
        while not store.ids()[1:] and not any('"outcomes"' in line for _, line in list(pools[0]._lines.queue)):
            assert time.monotonic() < until
            time.sleep(0.01)

    monkeypatch.setattr("normlab.runner.Pool", watched)
    monkeypatch.setattr(Store, "save_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(
            Study.load(study, overrides=["epochs=1", "seeds=2", "norm=batch"]), store=store, workers=2, cohort=1,
            report=lambda status: finished.append(status.finished),
        )  # fmt: skip
    assert len(store.ids()) == finished[-1] == 2
    assert list(store.root.glob("running/*")) == []


@pytest.mark.fault(5)
def test_a_worker_that_somebody_else_tells_to_end_is_replaced_and_nothing_is_called_over(
    study: Path, normlab: Run
) -> None:
    store = study.parent / "normlab-store"
    process = start(
        study, "seeds=2", "norm=batch", "epochs=40", "-j", "1", "--cohort", "1", "--checkpoint-seconds", "0.2"
    )
    while newest_checkpoint(store) == 0:
        time.sleep(0.01)
    worker = worker_of(process)
    assert worker is not None
    os.kill(worker, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "time is up" not in errors
    assert "trained 2 trials" in errors


def newest_checkpoint(store: Path) -> int:
    """The steps done at the last one; 0 where there is none."""
    return max((int(path.name) for path in store.glob("checkpoints/*/0*")), default=0)


@pytest.mark.slow
@pytest.mark.fault(5)
@pytest.mark.fault(14)
def test_workers_end_with_their_runner_and_its_trials_are_free_at_once(study: Path, normlab: Run) -> None:
    process = start(study, "epochs=2000", "-j", "1")
    wait_for_claim(study.parent / "normlab-store")
    worker = worker_of(process)
    assert worker is not None
    process.kill()
    process.communicate()
    until = time.monotonic() + 5
    while process_start(worker) is not None:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert list((study.parent / "normlab-store").glob("running/*.json"))
    assert "running" in normlab("status", study, "epochs=2000").stdout
    done = normlab("run", study, "epochs=1")  # the same trials but for their length: nothing waits for a minute
    assert done.returncode == 0


# Many at once


def assert_shared(study: Path, runners: int, kills: int, seed: int) -> None:
    """Several runners on one store, some killed: every trial is trained, and by those that lived at most once."""
    store, draw = study.parent / "store", random.Random(seed)
    arguments = (study, "seeds=8", "epochs=6", "--cohort", "1", "-j", "1", "--store", store, "--json")
    processes = [start(*arguments) for _ in range(runners)]
    trained = 0
    while processes:
        time.sleep(draw.uniform(0.5, 2.0))
        living = [process for process in processes if process.poll() is None]
        for process in set(processes) - set(living):
            output, errors = process.communicate()
            assert process.returncode == 0, errors
            trained += json.loads(output)["trained"]
        processes = living
        if kills and living:
            victim = draw.choice(living)
            victim.kill()
            victim.communicate()
            kills -= 1
            processes = [process for process in living if process is not victim] + [start(*arguments)]
    assert len(fingerprints(store)) == 16
    assert trained <= 16
    starts = [json.loads(path.read_text())["provenance"]["started"] for path in store.glob("trials/*/result.json")]
    assert len(starts) == 16
    assert list(store.glob("running/*")) == []


@pytest.mark.slow
@pytest.mark.fault(13)
def test_two_runners_share_a_study_and_train_no_trial_twice(study: Path) -> None:
    store = study.parent / "store"
    arguments = ("seeds=3", "epochs=3", "--cohort", "1", "-j", "1", "--store", store, "--json")
    outputs = [process.communicate()[0] for process in [start(study, *arguments), start(study, *arguments)]]
    counts = [json.loads(output) for output in outputs]
    assert sum(count["trained"] for count in counts) == 6
    assert len(fingerprints(store)) == 6
    assert list(store.glob("running/*")) == []


@pytest.mark.slow
@pytest.mark.fault(13)
def test_four_runners_with_random_kills_finish_every_trial_once(study: Path) -> None:
    assert_shared(study, runners=4, kills=8, seed=3)


@pytest.mark.fault(13)
def test_a_plan_made_before_another_runner_finished_trains_and_moves_nothing(study: Path, tmp_path: Path) -> None:
    loaded = Study.load(study, overrides=["seeds=2", "norm=batch", "epochs=1"])
    store = Store(tmp_path / "store")
    before = make_plan(loaded, store)
    assert run(loaded, store=store, workers=1, device="cpu").trained == 2
    kept = fingerprints(store.root)
    assert run(before, store=store, workers=1, device="cpu").trained == 0
    assert fingerprints(store.root) == kept
    assert list(store.root.glob("trials/.*")) == []


@pytest.mark.fault(5)
@pytest.mark.fault(13)
def test_what_another_runner_left_when_it_died_is_taken_over_by_one_that_lives(study: Path, tmp_path: Path) -> None:
    loaded = Study.load(study, overrides=["seeds=2", "norm=batch", "epochs=2"])
    store = Store(tmp_path / "store")
    store.require_writable()
    other = subprocess.Popen(["sleep", "600"])
    held = make_plan(loaded, store).trials[1].id
    holder = process_identity() | {"pid": other.pid, "started": process_start(other.pid)}
    (store.root / "running" / f"{held}.json").write_text(json.dumps(holder))

    def die(status: Any) -> None:
        if status.running:
            other.kill()
            other.wait()

    summary = run(loaded, store=store, workers=1, device="cpu", report=die)
    assert (summary.trained, summary.elsewhere) == (2, 0)
    assert_clean(store.root)


@pytest.mark.fault(5)
def test_a_worker_that_dies_over_its_answer_costs_its_own_trial_alone(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = (
        "import os, sys; sys.stdin.readline(); sys.stdout.write('{\"outcomes\": [{'); sys.stdout.flush(); os._exit(9)"
    )
    monkeypatch.setattr("normlab.pool.WORKER", half)
    loaded = Study.load(study, overrides=["seeds=2", "norm=batch", "epochs=1"])
    summary = run(loaded, store=Store(tmp_path / "store"), workers=1, device="cpu", cohort=1)
    assert sorted(summary.failures.values()) == ["the worker died: exit code 9 (2 tries)"] * 2


# Disks


@pytest.mark.fault(16)
def test_a_full_disk_below_the_cache_is_one_line(study: Path, small_disk: Path, normlab: Run) -> None:
    from tests.test_datasets import make_files, write_zip

    write_zip(study.parent / "pets.zip", make_files(per_class=100, size=(64, 64)))
    full = normlab("data", "fetch", "folder:./pets.zip", NORMLAB_HOME=str(small_disk))
    assert (full.returncode, full.stderr.count("\n")) == (2, 1), full.stderr
    assert "images of 64×64 pixels need" in full.stderr
    assert list((small_disk / "decoded").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few hundred kilobytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk of its own needs the right to mount one")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
@pytest.mark.fault(16)
def test_a_full_disk_loses_nothing_that_is_finished_and_the_run_goes_on_when_there_is_room(
    study: Path, small_disk: Path, normlab: Run
) -> None:
    whole = study.parent / "whole"
    arguments = ("norm=batch", "seeds=6", "epochs=1", "--cohort", "1", "-j", "1")
    assert normlab("run", study, *arguments, "--store", whole).returncode == 0
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(375_000))
    full = normlab("run", study, *arguments, "--store", small_disk / "store")
    assert (full.returncode, full.stderr.count("Traceback")) == (2, 0)
    assert "No space left on device" in full.stderr
    before = fingerprints(small_disk / "store")
    assert 0 < len(before) < 6
    assert not list((small_disk / "store" / "trials").glob(".*"))
    ballast.unlink()
    assert normlab("run", study, *arguments, "--store", small_disk / "store").returncode == 0
    assert fingerprints(small_disk / "store") == fingerprints(whole)


@pytest.mark.fault(16)
def test_a_checkpoint_that_cannot_be_written_costs_the_way_back_and_not_the_training(study: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    arguments = ("norm=batch", "seeds=1", "epochs=20", "network=16K-2C2B-64D-10D", "--checkpoint-seconds", "0.2")
    process = start(study, *arguments, limit=limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "note: checkpoint" in errors
    assert "cannot be written (File too large); training goes on without it" in errors
    assert "trained 1 trial" in errors
    assert_clean(study.parent / "normlab-store")


# Memory and hangs


@pytest.mark.slow
@pytest.mark.fault(23)
def test_a_cohort_that_does_not_fit_into_memory_is_halved_and_what_never_fits_is_failed(study: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))

    together = (
        "norm=batch",
        "seeds=8",
        "epochs=1",
        "network=200K-1C1B-10D",
        "batch_size=600",
        "train_images=600",
        "test_images=100",
        "--cohort",
        "8",
        "-j",
        "1",
    )
    process = start(study, *together, limit=limit)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    sizes = {
        json.loads(path.read_text())["provenance"]["cohort_size"]
        for path in study.parent.glob("normlab-store/trials/*/result.json")
    }
    assert sizes
    assert max(sizes) < 8
    process = start(study, "norm=batch", "seeds=1", "epochs=1", "network=9000K-1C1B-10D", "batch_size=400", limit=limit)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "failed digits-9000K" in errors
    assert "memory" in errors


def own_workers() -> set[int]:
    """The worker processes that this process has started."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in children if "normlab.worker" in Path(f"/proc/{pid}/cmdline").read_text()}


def test_a_worker_that_is_killed_loses_nothing_of_what_it_was_sent_ahead(study: Path, tmp_path: Path) -> None:
    loaded = Study.load(study, overrides=["norm=batch", "epochs=2", "seeds=4"])
    store = Store(tmp_path / "store")
    killed: set[int] = set()

    def kill_once(status: Any) -> None:
        claimed = list((store.root / "running").glob("*.json"))
        if not killed and status.finished >= 1 and len(claimed) == 2:  # one that is trained, and one ahead
            killed.update(own_workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    summary = run(loaded, store=store, workers=1, device="cpu", cohort=1, report=kill_once)
    assert len(killed) == 1
    assert (summary.trained, summary.failures) == (4, {})
    assert not make_plan(loaded, store).missing()
    assert list((store.root / "running").iterdir()) == []


@pytest.mark.slow
@pytest.mark.fault(24)
def test_a_worker_that_says_nothing_is_killed_and_its_trial_tried_again(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def patience(seconds: float) -> None:
        monkeypatch.setattr("normlab.pool.SILENCE_SECONDS", seconds)

    patience(60.0)  # more than a worker needs to start
    loaded = Study.load(study, overrides=["seeds=1", "norm=batch", "epochs=200"])
    stopped: list[int] = []

    def stop_worker(status: Any) -> None:
        """Stops every worker, once it trains, and has it waited for shortly."""
        if status.loss is None:
            patience(60.0)
            return
        for pid in own_workers() - set(stopped):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
            patience(2.0)

    store = Store(tmp_path / "store")
    summary = run(loaded, store=store, workers=1, device="cpu", report=stop_worker)
    ((_, reason),) = summary.failures.items()
    assert reason == "the worker said nothing for 2 seconds and was killed (2 tries)"
    assert len(stopped) == 2
    assert len(make_plan(loaded, store).missing()) == 1


@pytest.mark.fault(39)
def test_one_trial_that_fails_stops_no_other_unless_that_was_asked_for(study: Path, normlab: Run) -> None:
    """The image of one trial cannot be had: its network asks for more memory than there is address space."""
    text = (
        STUDY.replace("  network: 6K-2C2B-16D-Dropout0.5-10D\n", "")
        .replace("seeds: 6", "seeds: 1")
        .replace("epochs: 14", "epochs: 1")
    )
    study.write_text(text.replace("norm: [batch, renorm]", "network: [65000K-2C1B-10D, 4K-1C1B-10D, 5K-1C1B-10D]"))
    done = normlab("run", study, "-j", "1", "--cohort", "1")
    assert done.returncode == 1
    assert "trained 2 trials" in done.stderr
    assert done.stderr.count("failed digits-65000K") == 1
    fast = normlab("run", study, "-j", "1", "--cohort", "1", "--fail-fast", "--store", "other")
    assert fast.returncode == 1
    assert "trained 0 trials" in fast.stderr


@pytest.mark.fault(39)
def test_a_result_that_cannot_be_read_is_named_and_its_neighbours_are_trained(study: Path, normlab: Run) -> None:
    study.write_text(STUDY.replace("[batch, renorm]", "[batch]").replace("seeds: 6", "seeds: 3").replace("14", "1"))
    (trial_id, *others) = [trial.id for trial in make_plan(Study.load(study), Store(study.parent / "none")).trials]
    path = study.parent / "normlab-store" / "trials" / trial_id / "result.json"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    for trained in (2, 0):  # also when it is tried again
        done = normlab("run", study, "--cohort", "3")
        assert done.returncode == 1
        assert f"trained {trained} trials" in done.stderr
        assert f"failed {trial_id}" in done.stderr
        assert "it is not a regular file" in done.stderr
    assert all(Store(study.parent / "normlab-store").load(other) for other in others)


def test_nothing_listens_and_nothing_calls_home(study: Path, tmp_path: Path, normlab: Run) -> None:
    """Every connect and bind of every process of a run and a report is written down; there is none."""
    spy = tmp_path / "spy"
    spy.mkdir()
    (spy / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def hook(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.bind', 'socket.sendto', 'socket.getaddrinfo'):\n"
        "        open(os.environ['SPY'], 'a').write(f'{event} {arguments}\\n')\n"
        "sys.addaudithook(hook)\n"
    )
    heard = tmp_path / "heard"
    environment = {"PYTHONPATH": str(spy), "SPY": str(heard)}
    probe = subprocess.run([sys.executable, "-c", "import socket; socket.socket().bind(('127.0.0.1', 0))"], check=True,
                           env={**os.environ, **environment})  # fmt: skip
    assert probe.returncode == 0
    assert heard.read_text().startswith("socket.bind")
    heard.unlink()
    for arguments in (
        ("run", study, "seeds=2", "epochs=1"),
        ("report", study, "seeds=2", "epochs=1"),
        ("store", "check"),
    ):
        assert normlab(*arguments, **environment).returncode == 0
    assert not heard.exists()
