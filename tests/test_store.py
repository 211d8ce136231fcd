"""The store: a result is there whole or not at all, and nothing that is finished is lost or changed."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from normlab import files
from normlab.errors import UsageError
from normlab.processes import process_identity, process_start
from normlab.result import (
    Details,
    Mistake,
    Result,
    _parse,
    details_from_json,
    details_to_json,
    result_from_json,
    result_to_json,
    sha256,
)
from normlab.store import Store, Unreadable
from normlab.trial import identity, make_spec, trial_id, trial_ids


def make_result(seed: int = 0, **settings: Any) -> Result:
    spec = make_spec({"data": "digits", "network": "8K-2C2B-10D", "epochs": 1, "seed": seed, **settings})
    details = Details(curves={"epoch": [1], "test_accuracy": [None]}, classes=("a", "b"), confusion=[[1, 0], [2, 3]])
    metrics = {"test_accuracy": 0.5, "num_test": 6}
    return Result(id=trial_id(spec), spec=spec, status="finished", metrics=metrics, details=details)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.require_writable()
    return made


def test_a_result_comes_back_as_it_was_saved(store: Store) -> None:
    result = make_result()
    store.save(result, {"model.safetensors": b"weights"})
    assert store.load(result.id, details=True) == result
    assert store.load("absent") is None
    assert store.ids() == [result.id]
    assert (store.root / "trials" / result.id / "model.safetensors").read_bytes() == b"weights"


def test_a_finished_result_is_never_overwritten(store: Store) -> None:
    first = make_result()
    store.save(first)
    later = Result(
        id=first.id, spec=first.spec, status="finished", metrics={"test_accuracy": 0.9}, details=first.details
    )
    store.save(later)
    assert store.load(first.id, details=True) == first


def test_results_saved_together_are_there_each_as_if_saved_alone(store: Store, tmp_path: Path) -> None:
    results = [make_result(seed) for seed in range(3)]
    store.save(results[1])
    store.record_failure(results[2].id, "out of memory")
    store.save_all([(result, {"model.safetensors": b"weights"}) for result in results])
    alone = Store(tmp_path / "alone")
    alone.require_writable()
    alone.save(results[0], {"model.safetensors": b"weights"})
    assert [store.load(result.id, details=True) for result in results] == results
    for name in ("result.json", "details.json", "model.safetensors"):
        place = Path("trials") / results[0].id / name
        assert (store.root / place).read_bytes() == (alone.root / place).read_bytes()
    assert not (store.root / "trials" / results[1].id / "model.safetensors").exists()  # it was there
    assert store.failures([results[2].id]) == {}
    assert store.ids() == sorted(path.name for path in (store.root / "trials").iterdir())


def test_of_results_saved_together_none_is_lost_when_another_runner_is_quicker_with_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [make_result(seed) for seed in range(4)]
    replace, quicker = os.replace, [results[1]]

    def slow(source: Any, target: Any) -> None:
        while quicker:
            Store(store.root).save(quicker.pop())
        replace(source, target)

    monkeypatch.setattr("os.replace", slow)
    store.save_all([(result, {}) for result in results])
    assert [store.load(result.id, details=True) for result in results] == results
    assert store.ids() == sorted(path.name for path in (store.root / "trials").iterdir())


def test_of_results_saved_together_what_fits_on_the_disk_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    results, write = [make_result(seed) for seed in range(3)], files.write_durably

    def full(path: Path, content: bytes) -> None:
        if results[2].id.encode() in content:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(files, "write_durably", full)
    with pytest.raises(OSError, match="No space left"):
        store.save_all([(result, {}) for result in results])
    assert store.ids() == sorted(path.name for path in (store.root / "trials").iterdir())
    assert [store.load(result.id, details=True) for result in results] == [*results[:2], None]


def test_a_store_that_is_read_only_can_be_read(store: Store) -> None:
    result = make_result()
    store.save(result)
    content = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    for path in [store.root, *store.root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert Store(store.root).load(result.id, details=True) == result
        assert {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()} == content
    finally:
        for path in [store.root, *store.root.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_result_that_was_edited_after_it_was_read_is_damaged_though_its_size_and_time_are_the_same(
    store: Store,
) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "result.json"
    assert store.load(result.id) is not None
    before = path.stat()
    path.write_text(path.read_text().replace('"test_accuracy": 0.5', '"test_accuracy": 0.6'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(ValueError, match="edited by hand"):
        store.load(result.id)


def test_details_with_a_key_that_stands_twice_are_damaged(store: Store) -> None:
    text = '{"curves": {"epoch": [1], "test_loss": [2]}, "classes": ["a: b"], "confusion": [[1]], "mistakes": []}'
    assert details_from_json(text).classes == ("a: b",)
    for twice in (
        text.replace('"confusion"', '"classes": ["c"], "confusion"'),
        text.replace('"test_loss": [2]', '"test_loss": [2], "test_loss": [3]'),
        text.replace('"test_loss": [2]', '"test_loss": [2], "test_l\\u006fss": [3]').replace("a: b", "a"),
    ):
        with pytest.raises(ValueError, match="a key stands twice"):
            details_from_json(twice)


def test_both_files_of_a_result_are_json_a_person_can_read_without_nan(store: Store) -> None:
    result = make_result()
    mistake = Mistake(image=3, true=0, predicted=1, confidence=0.5)
    details = Details(curves={"epoch": [1, 2]}, classes=("ä", 'b": ['), confusion=[[1, 0], [2, 3]], mistakes=[mistake])
    text = details_to_json(details)
    assert details_from_json(text) == details
    assert [line.partition(":")[0] for line in text.splitlines()] == [
        "{", ' "curves"', ' "classes"', ' "confusion"', ' "mistakes"', "}",
    ]  # fmt: skip
    text = result_to_json(result, {})
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
    with pytest.raises(ValueError, match="not JSON compliant"):
        details_to_json(replace(details, curves={"epoch": [1], "train_loss": [float("nan")]}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        result_to_json(replace(result, metrics={"test_loss": float("inf")}), {})


def test_a_damaged_result_is_named_and_can_be_set_aside(store: Store) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "result.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"result\.json is damaged"):
        store.load(result.id)
    store.set_aside(result.id)
    assert store.load(result.id) is None
    store.save(result)
    assert store.load(result.id, details=True) == result


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"test_accuracy": 0.5', '"test_accuracy": NaN'),
        ('"test_accuracy": 0.5', '"test_accuracy": Infinity'),
        ('"test_accuracy": 0.5', '"test_accuracy": 0.5, "test_accuracy": 0.6'),
        ('"status": "finished",', ""),
        ('"status": "finished"', '"status": "excellent"'),
        ('"test_accuracy": 0.5', '"test_accuracy": "high"'),
        ('"test_accuracy": 0.5', '"test_accuracy": null'),
        ('"files": {', '"files": null, "other": {'),
        ('"details.json"', "\udcff"),
        ('"format": 1', '"format": 999'),
        ('"epochs": 1', '"epochs": -1'),
        ('"epochs": 1', '"epochs": ' + "[" * 100_000 + "]" * 100_000),
    ],
)
def test_a_result_that_is_not_what_it_should_be_is_damaged(store: Store, old: str, new: str) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "result.json"
    unsealed = re.sub(r',\n "sha256": "[0-9a-f]+"\n', "\n", path.read_text().replace('"format": 2', '"format": 1'))
    path.write_text(unsealed)
    assert store.load(result.id) is not None
    assert old in unsealed
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(errors="surrogateescape")))
    with pytest.raises(ValueError, match="damaged"):
        store.load(result.id)


@pytest.mark.fault(37)
def test_a_sealed_result_in_which_a_key_stands_twice_is_damaged(store: Store) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "result.json"
    body, _, _ = path.read_text().rpartition(',\n "sha256"')
    body = body.replace('"status": "finished"', '"status": "finished",\n "status": "finished"')
    digest = sha256((body + "\n}\n").encode())
    path.write_text(f'{body},\n "sha256": "{digest}"\n}}\n')
    with pytest.raises(ValueError, match="a key stands twice"):
        store.load(result.id)


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"status": "finished"', '"status":"diverged",\n "status": "finished"'),
        ('"status": "finished"', '"status" : "diverged",\n "status": "finished"'),
        ('"status": "finished"', '"status"\n: "diverged",\n "status": "finished"'),
        ('"num_test": 6', '"num_test":6,\n  "num_test": 7'),
        (' "spec": {', ' "spec": {\n  "data": "digits"\n },\n "spec": {'),
        (' "spec": {', ' "a": {"b": 1,\n "spec": {\n  "data": "digits"\n },\n "c": 2},\n "spec": {'),
        (' "spec": {', ' "a": {"b": 1,\n "spec": {\n },\n "c": 2},\n "spec":{'),
        ('"seed": 0', '"seed": 0,\n  "seed": 1'),
        ('"seed": 0', '"seed": 00'),
        ('"epochs": 1,', '"epochs": 1,\n  "epochs": 1,'),
        (
            ' "spec": {',
            ' "provenance_": {"device": "cpu",\n "spec": {\n  "data": "x",\n  "seed": 0\n },\n "a": 1},\n "spec": {',
        ),
        (
            ' "spec": {',
            ' "spec": 0,\n "x": {"device": "cpu",\n "spec": {\n  "data": "x",\n  "seed": 0\n },\n "a": 1},\n "spec": {',
        ),
    ],
)
def test_what_is_sealed_is_read_as_a_careful_reader_reads_it(store: Store, old: str, new: str) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "result.json"
    body, _, _ = path.read_text().rpartition(',\n "sha256"')
    assert body.count(old) == 1
    body = body.replace(old, new) + "\n}\n"
    sealed = f'{body.removesuffix(chr(10) + "}" + chr(10))},\n "sha256": "{sha256(body.encode())}"\n}}\n'
    path.write_text(sealed)
    try:
        tree = _parse(sealed)  # such a reader
    except ValueError as refused:
        with pytest.raises(ValueError, match=re.escape(str(refused))):
            store.load(result.id)
    else:
        found = store.load(result.id)
        assert found is not None
        assert found.spec.model_dump(mode="json") == tree["spec"]


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"diverged_epoch": null,\n "x": {"a": 1,', '"b": 2},'),  # a spec, but not the result's
        ('"diverged_epoch": null,\n "x": [1,', "2],"),
        ('"diverged_epoch": ', "null,"),
    ],
)
def test_a_sealed_result_whose_spec_is_not_in_its_place_is_damaged(store: Store, before: str, after: str) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "result.json"
    body, _, _ = path.read_text().rpartition(',\n "sha256"')
    body = body.replace('"diverged_epoch": null,', before).replace('\n "provenance"', f'\n {after}\n "provenance"')
    path.write_text(f'{body},\n "sha256": "{sha256(f"{body}{chr(10)}}}{chr(10)}".encode())}"\n}}\n')
    with pytest.raises(ValueError, match="damaged"):
        store.load(result.id)


def test_a_result_that_is_nested_beyond_reason_is_damaged(store: Store) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "result.json"
    deep = "[" * 700 + "]" * 700
    path.write_text(path.read_text().replace('"provenance": {', f'"provenance": {{"x": {deep},'))
    with pytest.raises(ValueError, match="damaged"):
        store.load(result.id)


def test_a_sealed_result_may_hold_any_text(store: Store) -> None:
    result = replace(make_result(), provenance={'a "quoted": key \\': 'a "quoted": word', "plain": "\\"})
    store.save(result)
    assert store.load(result.id, details=True) == result


def reseal(path: Path, change: dict[str, Any]) -> None:
    """Writes a record anew with other content and the hash that belongs to it, as a stranger could."""
    tree = {name: value for name, value in json.loads(path.read_text()).items() if name != "sha256"} | change
    text = json.dumps(tree, indent=1, ensure_ascii=False) + "\n"
    path.write_text(json.dumps(tree | {"sha256": sha256(text.encode())}, indent=1, ensure_ascii=False) + "\n")


@pytest.mark.fault(37)
@pytest.mark.fault(39)
@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {"test_accuracy": 1.5}},
        {"metrics": {"test_accuracy": -0.1}},
        {"metrics": {"test_accuracy": 0.5, "test_loss": 10**400}},
        {"metrics": {"test_accuracy": 0.5, "test_loss": 1e308}},
        {"metrics": {"test_accuracy": True}},
        {"metrics": ["test_accuracy"]},
        {"provenance": ["x"]},
        {"provenance": {"seconds": "long"}},
        {"provenance": {"flops": 10**400}},
        {"diverged_epoch": "x"},
        {"status": "diverged"},
        {"status": "diverged", "diverged_epoch": 0},
        {"diverged_epoch": 3},
        {"files": 3},
        {"spec": []},
        {"spec": '"data": "digits", "network": "8K-2C2B-10D", "epochs": 1, "seed": 0'},
    ],
)
def test_a_result_with_a_hash_of_its_own_that_makes_no_sense_is_damaged(store: Store, change: dict[str, Any]) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "result.json"
    reseal(path, {})
    assert store.load(result.id, details=True) == result
    reseal(path, change)
    with pytest.raises(ValueError, match="damaged"):
        store.load(result.id)


@pytest.mark.fault(39)
@pytest.mark.parametrize(
    "change",
    [
        {"curves": []},
        {"curves": {"epoch": 3}},
        {"curves": {"epoch": [1, 2], "test_accuracy": [0.5]}},
        {"curves": {"test_accuracy": [0.5]}},
        {"curves": {"epoch": [None]}},
        {"classes": [1, {}]},
        {"classes": ["a"], "confusion": [[1, 2], ["x"]]},
        {"classes": ["a", "b"], "confusion": [[1, 2]]},
        {"classes": ["a", "b"], "confusion": [[1, -2], [3, 4]]},
        {"classes": ["a"], "mistakes": [{"image": 1, "true": 55, "predicted": 0, "confidence": 0.5}]},
        {"classes": ["a"], "mistakes": [{"image": "x", "true": 0, "predicted": 0, "confidence": 0.5}]},
        {"classes": ["a"], "mistakes": [{}]},
    ],
)
def test_details_that_make_no_sense_are_damaged(change: dict[str, Any]) -> None:
    tree: dict[str, Any] = {"curves": {}, "classes": [], "confusion": []}
    assert details_from_json(json.dumps(tree)) == Details()
    with pytest.raises(ValueError, match=r"curves|classes|confusion|mistake"):
        details_from_json(json.dumps(tree | change))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.fault(39)
def test_a_result_that_cannot_be_read_is_no_damaged_one_and_stays(store: Store) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "result.json"
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Unreadable, match="cannot be read: it is not a regular file"):
        store.load(result.id)
    store.set_aside_damaged(result.id)
    path.unlink()
    path.write_bytes(content)
    store.set_aside_damaged(result.id)
    assert store.load(result.id) is not None
    path.write_bytes(content[:-5])
    store.set_aside_damaged(result.id)
    assert store.load(result.id) is None


@pytest.mark.fault(39)
def test_a_folder_that_a_copy_left_without_its_result_gives_way_to_the_result(store: Store) -> None:
    """As rsync leaves it when it is interrupted: it goes by name, and result.json comes last."""
    first, second = make_result(0), make_result(1)
    left = store.root / "trials" / first.id
    left.mkdir()
    (left / "details.json").write_text("half of it")
    store.save_all([(first, {}), (second, {})])
    assert store.load(first.id, details=True) == first
    assert store.load(second.id, details=True) == second
    (aside,) = (store.root / "trials").glob(".damaged-*")
    assert (aside / "details.json").read_text() == "half of it"


@pytest.mark.fault(41)
def test_details_that_were_edited_by_hand_do_not_match_their_hash(store: Store) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "details.json"
    path.write_text(path.read_text().replace("3", "4"))
    with pytest.raises(ValueError, match="SHA-256"):
        store.load(result.id, details=True)


def test_a_result_that_a_tool_laid_out_anew_is_the_same_result(store: Store) -> None:
    result = make_result()
    store.save(result)
    path = store.root / "trials" / result.id / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert store.load(result.id, details=True) == result
    path.write_text(json.dumps(json.loads(path.read_text()) | {"diverged_epoch": 3}))
    with pytest.raises(ValueError, match="edited by hand"):
        store.load(result.id)


def test_a_seed_that_is_none_is_damage_whatever_was_read_before(store: Store) -> None:
    sealed = result_to_json(make_result(), {})
    text = sealed.replace('"format": 2', '"format": 1')
    assert result_from_json(sealed).spec == result_from_json(text).spec
    body = sealed.rpartition(',\n "sha256"')[0]
    for seed in ("-1", "4294967296", "true", "1.0", '"1"', "null"):
        with pytest.raises(ValueError, match="seed"):
            result_from_json(text.replace('"seed": 0', f'"seed": {seed}'))
        other = body.replace('"seed": 0', f'"seed": {seed}')
        digest = sha256(f"{other}\n}}\n".encode())
        with pytest.raises(ValueError, match="seed"):
            result_from_json(f'{other},\n "sha256": "{digest}"\n}}\n')


def test_a_spec_that_equals_one_read_before_but_for_the_kind_of_a_value_is_damage() -> None:
    text = result_to_json(make_result(), {}).replace('"format": 2', '"format": 1')
    assert result_from_json(text)
    for old, new in (('"norm_dense": false', '"norm_dense": 0'), ('"batch_size": 16', '"batch_size": 16.0')):
        assert old in text
        with pytest.raises(ValueError, match=r"norm_dense|batch_size"):
            result_from_json(text.replace(old, new))


def test_a_result_copied_under_another_id_is_not_taken_for_that_trial(store: Store) -> None:
    first, second = make_result(0), make_result(1)
    store.save(first)
    (store.root / "trials" / first.id).rename(store.root / "trials" / second.id)
    with pytest.raises(ValueError, match="it is the result of"):
        store.load(second.id)


def test_stores_merge_by_copying(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.require_writable()
    store.save(make_result(0))
    other.save(make_result(1))
    for folder in (other.root / "trials").iterdir():
        folder.rename(store.root / "trials" / folder.name)
    assert len(store.ids()) == 2


def test_a_failure_is_remembered_until_a_success(store: Store) -> None:
    result = make_result()
    store.record_failure(result.id, "out of memory")
    assert store.failures([result.id, "other"]) == {result.id: "out of memory"}
    store.save(result)
    assert store.failures([result.id]) == {}


# Claims


def claim_of(store: Store, trial_id: str, **holder: Any) -> Path:
    """A claim that somebody else left."""
    path = store.root / "running" / f"{trial_id}.json"
    path.write_text(json.dumps(process_identity() | holder))
    return path


def test_a_claim_excludes_others_until_it_is_released(store: Store) -> None:
    assert store.claim(["a"])
    assert not store.claim(["a"])
    store.release("a")
    assert store.claim(["a"])


def test_a_trial_with_a_result_is_not_claimed_again(store: Store) -> None:
    result = make_result()
    store.save(result)
    assert not store.claim([result.id])


@pytest.mark.fault(14)
def test_a_claim_of_a_process_that_is_gone_is_taken_over_at_once(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    started = process_start(dead.pid)
    dead.kill()
    while process_start(dead.pid) is not None:  # a zombie, until it is waited for
        pass
    claim_of(store, "a", pid=dead.pid, started=started)
    assert store.claim(["a"])
    dead.wait()


@pytest.mark.fault(14)
def test_a_process_id_that_was_used_again_is_not_taken_for_the_runner_that_had_it(store: Store) -> None:
    claim_of(store, "a", pid=os.getpid(), started="long ago")
    assert store.claim(["a"])


@pytest.mark.fault(15)
def test_a_clock_that_jumps_does_not_take_a_trial_from_a_living_process(store: Store) -> None:
    path = claim_of(store, "a")
    for seconds in (-1e6, 1e6):
        os.utime(path, (time.time() + seconds,) * 2)
        assert not store.claim(["a"])


def test_claims_are_made_and_released_one_by_one_whether_or_not_the_disk_can_give_a_file_two_names(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    for linked in (True, False):
        claim_of(store, "b", started="long ago")  # left behind
        assert store.claim(["a", "b", "c"]) == ["a", "b", "c"]
        found = {path.name: path.stat().st_ino for path in (store.root / "running").iterdir()}
        assert sorted(found) == ["a.json", "b.json", "c.json"]
        assert len(set(found.values())) == (1 if linked else 3)
        store.release("a")
        assert [store.is_claimed(trial_id) for trial_id in "abc"] == [False, True, True]
        store.release("b")
        store.release("c")
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.fault(1)
def test_a_runner_that_is_killed_while_it_claims_leaves_no_claim_of_nobody(store: Store) -> None:
    program = (
        "import os, sys; from pathlib import Path; from normlab.store import Store\n"
        "Path.write_text = lambda path, text: (path.touch(), os.kill(os.getpid(), 9))\n"
        "Store(Path(sys.argv[1])).claim(['a'])"
    )
    assert subprocess.run([sys.executable, "-c", program, str(store.root)], check=False).returncode == -9
    assert store.claim(["a"])


@pytest.mark.fault(1)
def test_what_a_runner_that_was_killed_while_it_claimed_left_is_not_written_through(store: Store) -> None:
    claim = claim_of(store, "a", started="another")
    for left in ("b", "claims"):  # by a runner that had the same process id
        os.link(claim, store.root / "running" / f"{left}.new-{os.getpid()}")
    before = claim.read_text()
    assert store.claim(["b"]) == ["b"]
    assert claim.read_text() == before
    assert sorted(path.name for path in (store.root / "running").iterdir()) == ["a.json", "b.json"]


def test_two_runners_claim_side_by_side_where_the_system_locks_no_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normlab.store.lock", lambda file: None)
    rename = os.replace

    def slowly(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", rename)
        assert store.claim(["b"]) == ["b"]
        rename(source, target)

    monkeypatch.setattr(os, "replace", slowly)
    assert store.claim(["a"]) == ["a"]
    assert store.is_claimed("a")
    assert store.is_claimed("b")


@pytest.mark.fault(15)
def test_a_claim_of_another_machine_from_the_future_is_watched_and_taken_once_it_is_silent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normlab.store.HEARTBEAT_SECONDS", 0.1)
    path = claim_of(store, "a", machine="another", pid=7)
    os.utime(path, (time.time() + 86_400,) * 2)  # its clock was a day ahead when it died
    assert store.claim(["a"])


@pytest.mark.fault(15)
def test_a_claim_of_another_machine_stands_while_its_heart_beats_whatever_the_clock_says(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normlab.store.HEARTBEAT_SECONDS", 0.3)
    path = claim_of(store, "a", machine="another")
    assert not store.claim(["a"])
    os.utime(path, (1.0, 1.0))  # as if by a clock far behind ours

    def beat() -> None:
        for tick in range(2, 10):
            time.sleep(0.1)
            os.utime(path, (tick, tick))

    beating = threading.Thread(target=beat)
    beating.start()
    assert not store.claim(["a"])
    beating.join()
    assert store.claim(["a"])  # no beat any more
    assert not store.claim(["a"])


@pytest.mark.fault(13)
@pytest.mark.fault(14)
def test_runners_that_find_the_same_claims_left_behind_never_both_take_one(store: Store) -> None:
    for i in range(40):
        claim_of(store, f"trial{i}", started="gone")
    script = (
        "import sys; from pathlib import Path; from normlab.store import Store\n"
        "store = Store(Path(sys.argv[1])); sys.stdin.readline()\n"
        "print([i for i in range(40) if store.claim([f'trial{i}'])]); sys.stdout.flush(); sys.stdin.readline()"
    )
    runners = [
        subprocess.Popen(
            [sys.executable, "-c", script, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in runners:
        process.stdin.write("\n")
        process.stdin.flush()
    taken = [i for process in runners for i in json.loads(process.stdout.readline())]
    for process in runners:
        process.communicate("\n")
    assert sorted(taken) == list(range(40))


@pytest.mark.fault(18)
def test_a_store_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        Store(tmp_path / "file").require_writable()


# Ids and formats that reached disk are a contract: these strings may never change.
PINNED: list[tuple[dict[str, Any], str]] = [
    ({}, "digits-8K-2C2B-10D-none-lr0.001-b16-s0-e13446eed7b0"),
]


@pytest.mark.parametrize(("settings", "expected"), PINNED)
def test_ids_that_reached_disk_stay_what_they_are(settings: dict[str, Any], expected: str) -> None:
    assert trial_id(make_spec({"data": "digits", "network": "8K-2C2B-10D", "epochs": 1, **settings})) == expected


def test_the_ids_of_several_seeds_are_those_of_each() -> None:
    first = make_spec({"data": "digits", "network": "4K-1C1B-10D", "epochs": 3, "seed": 7})
    seeds = [0, 1, 7, 2**32 - 1]
    assert trial_ids(first, seeds) == [trial_id(first.model_copy(update={"seed": seed})) for seed in seeds]


def test_a_setting_without_effect_takes_no_part_in_the_id() -> None:
    base = {"data": "digits", "network": "8K-2C2B-10D", "epochs": 1, "activation": "relu"}
    plain = trial_id(make_spec(base))
    for idle in ({"slope": 0.3}, {"norm_eps": 0.1}, {"momentum": 0.5}, {"step_at": (1,), "step_factors": (0.1,)}):
        assert trial_id(make_spec({**base, **idle})) == plain
    for active in ({"seed": 1}, {"precision": "bfloat16"}, {"data_fingerprint": "x"}, {"learning_rate": 0.1}):
        assert trial_id(make_spec({**base, **active})) != plain


def test_a_setting_written_out_at_its_default_is_the_same_trial() -> None:
    base = {"data": "digits", "network": "8K-2C2B-10D", "epochs": 1}
    assert trial_id(make_spec({**base, "batch_size": 16, "learning_rate": 1e-3})) == trial_id(make_spec(base))


def test_an_id_is_a_safe_name_for_a_folder() -> None:
    spec = make_spec({"data": "folder:../..//x y\n" + "z" * 200, "network": "10D", "epochs": 1})
    name = trial_id(spec)
    assert len(name) < 130
    assert name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    assert not name.startswith(".")


def test_the_identity_is_json_of_what_differs_from_the_defaults() -> None:
    spec = make_spec({"data": "digits", "network": "10D", "epochs": 1, "norm": "batch", "batch_size": 4})
    assert json.loads(json.dumps(identity(spec))) == {
        "format": 1,
        "data": "digits",
        "network": "10D",
        "norm": "batch",
        "epochs": 1,
        "batch_size": 4,
    }
