"""Stores looked after: every byte checked, merged without losing or repeating a result, packed for others."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from normlab.errors import UsageError
from normlab.files import read_bounded
from normlab.result import sha256
from normlab.store import Store
from normlab.upkeep import check, export, merge
from tests.conftest import Run
from tests.test_store import make_result

OLD = Path(__file__).parent / "data" / "store-format-1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of five results, one with weights."""
    made = Store(tmp_path / "store")
    made.require_writable()
    for seed in range(5):
        made.save(make_result(seed), {"model.safetensors": b"weights"} if seed == 0 else None)
    return made


def everything(store: Store) -> dict[str, bytes]:
    root = store.root / "trials"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.fault(41)
@pytest.mark.parametrize("file", ["result.json", "details.json", "model.safetensors"])
def test_a_check_finds_one_changed_byte_in_any_file_and_repair_sets_the_result_aside(store: Store, file: str) -> None:
    assert (check(store).whole, check(store).damaged) == (5, {})
    path = store.root / "trials" / make_result(0).id / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = check(store)
    assert (found.whole, list(found.damaged)) == (4, [str(path.parent)])
    check(store, repair=True)
    assert check(store).damaged == {}
    assert make_result(0).id not in store.ids()
    assert list((store.root / "trials").glob(".damaged-*"))  # nothing is deleted


@pytest.mark.fault(39)
def test_what_this_user_may_not_read_is_named_and_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rights say nothing to root, who may run these tests."""
    secret, merged = make_result(2).id, make_result(3)

    def read(path: Path, most: int) -> bytes:
        if path.is_relative_to(store.root / "trials" / secret):
            raise PermissionError(13, "Permission denied", str(path))
        return read_bounded(path, most)

    other = Store(store.root.parent / "other")
    other.require_writable()
    other.save(make_result(2))
    other.save(merged)
    monkeypatch.setattr("normlab.upkeep.read_bounded", read)
    folder = str(store.root / "trials" / secret)
    found = check(store, repair=True)
    assert (found.damaged, found.unreadable) == ({}, {folder: "Permission denied"})
    done = merge([other.root], store)
    assert (done.there, done.added, done.damaged) == (1, 0, {folder: "Permission denied"})
    with pytest.raises(UsageError, match=r"Permission denied$"):
        export(store, [secret], store.root / "packed.zip")
    monkeypatch.undo()
    assert check(store).whole == 5


@pytest.mark.fault(41)
def test_a_result_edited_by_hand_is_not_believed(store: Store) -> None:
    path = store.root / "trials" / make_result(1).id / "result.json"
    path.write_text(path.read_text().replace('"test_accuracy": 0.5', '"test_accuracy": 0.9'))
    with pytest.raises(ValueError, match="edited by hand, or damaged"):
        store.load(make_result(1).id)


def test_a_result_whose_spec_is_anothers_is_found(store: Store) -> None:
    result = replace(make_result(7), spec=make_result(8).spec)
    store.save(result)
    assert "its spec is that of" in check(store).damaged[str(store.root / "trials" / result.id)]


def test_a_store_made_by_older_code_still_loads_and_merges(store: Store) -> None:
    old = Store(OLD)
    (name,) = old.ids()
    result = old.load(name, details=True)
    assert result is not None
    assert result.details is not None
    assert result.metrics["test_accuracy"] == result.details.curves["test_accuracy"][-1]
    assert check(old).whole == 1
    assert merge([OLD], store).added == 1
    assert store.load(name, details=True) == result


def test_a_result_of_a_later_version_says_which(store: Store) -> None:
    path = store.root / "trials" / make_result(1).id / "result.json"
    tree = json.loads(path.read_text())
    tree |= {"format": 9, "provenance": {"normlab_version": "7.1"}}
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"written in format 9 by normlab 7\.1; this one reads the formats 1 and 2"):
        store.load(make_result(1).id)
    body = json.dumps({**tree, "spec": {"of_the_future": 1, **tree["spec"]}}, indent=1).removesuffix("\n}")
    path.write_text(f'{body},\n "sha256": "{sha256(f"{body}{chr(10)}}}{chr(10)}".encode())}"\n}}\n')
    with pytest.raises(ValueError, match=r"written in format 9 by normlab 7\.1; this one reads the formats 1 and 2"):
        store.load(make_result(1).id)


def test_what_a_killed_run_left_behind_is_found_and_removed_unless_a_runner_lives(store: Store) -> None:
    left = store.root / "trials" / ".new-abc"
    left.mkdir()
    done = store.checkpoint_folder([make_result(0).id]) / "0000000001"
    done.mkdir(parents=True)
    (done / "progress.json").write_text(json.dumps({"ids": [make_result(0).id]}))
    for place in ("running/a.new-1", "failed/a.new-1", "checkpoints/a/.new-1"):
        (store.root / place).parent.mkdir(exist_ok=True)
        (store.root / place).touch()
    store.claim(["under way"])
    assert check(store).leftovers == []
    store.release("under way")
    assert len(check(store).leftovers) == 5
    check(store, repair=True)
    assert check(store).leftovers == []
    assert not left.exists()
    assert not done.exists()


def test_merging_keeps_every_result_once_and_names_conflicts(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.require_writable()
    for seed in (3, 4, 5):
        other.save(make_result(seed))
    other.save(replace(make_result(6), metrics={"test_accuracy": 0.7, "num_test": 6}))
    store.save(make_result(6))
    before = everything(store)
    done = merge([other.root], store)
    assert (done.added, done.there, list(done.conflicts)) == (1, 2, [make_result(6).id])
    assert done.conflicts[make_result(6).id] == "test_accuracy 0.5 here, 0.7 there"
    assert before.items() <= everything(store).items()
    assert merge([other.root], store).added == 0
    assert check(store).whole == 7


def test_a_damaged_result_is_not_merged_and_is_replaced_by_a_whole_one(store: Store, tmp_path: Path) -> None:
    copy = Store(tmp_path / "copy")
    shutil.copytree(store.root, copy.root)
    (store.root / "trials" / make_result(0).id / "details.json").unlink()
    done = merge([store.root], copy)
    assert (done.added, done.there, len(done.damaged)) == (0, 4, 1)
    assert merge([copy.root], store).added == 1
    assert check(store).damaged == {}


def test_what_was_packed_comes_out_the_same_and_packs_to_the_same_bytes(store: Store, tmp_path: Path) -> None:
    assert export(store, store.ids(), tmp_path / "a.zip") == 5
    assert export(store, store.ids(), tmp_path / "b.zip") == 5
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    other = Store(tmp_path / "other")
    assert merge([tmp_path / "a.zip"], other).added == 5
    assert everything(other) == everything(store)


@pytest.mark.fault(32)
@pytest.mark.parametrize("name", ["../../evil", "trials/../../evil", "/evil", "trials/a/../../../evil"])
def test_a_hostile_zip_writes_nothing_outside_the_store(store: Store, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(name, "evil")
        archive.writestr("trials/x/result.json", '{"format": 2, "files": {"../../evil": "0"}}')
    before = everything(store)
    with pytest.raises(UsageError, match="evil"):
        merge([tmp_path / "evil.zip"], store)
    assert everything(store) == before
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(("file", "num_bytes"), [("result.json", (4 << 20) + 1), ("details.json", (256 << 20) + 1)])
def test_a_bomb_among_packed_results_is_named_and_the_others_are_merged(
    store: Store, tmp_path: Path, file: str, num_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(store, store.ids(), tmp_path / "a.zip")
    bomb = f"trials/{make_result(0).id}/{file}"
    with (
        zipfile.ZipFile(tmp_path / "a.zip") as old,
        zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            if name != bomb:
                new.writestr(name, old.read(name))
        with new.open(bomb, "w", force_zip64=True) as entry:
            for start in range(0, num_bytes, 1 << 20):
                entry.write(bytes(min(1 << 20, num_bytes - start)))
    read: list[str] = []
    whole = zipfile.ZipFile.open

    def spy(self: zipfile.ZipFile, info: Any, *arguments: Any, **options: Any) -> Any:
        read.append(info.filename)
        return whole(self, info, *arguments, **options)

    monkeypatch.setattr(zipfile.ZipFile, "open", spy)
    done = merge([tmp_path / "b.zip"], Store(tmp_path / "other"))
    assert done.added == 4
    assert f"{file} has {num_bytes:,} bytes; at most" in next(iter(done.damaged.values()))
    assert bomb not in read


def test_a_result_that_names_files_elsewhere_is_refused(store: Store, tmp_path: Path) -> None:
    from normlab.result import result_to_json

    result = make_result(9)
    folder = tmp_path / "hostile" / "trials" / result.id
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(result_to_json(result, {"../../../secret": "0" * 64}))
    done = merge([tmp_path / "hostile"], store)
    assert done.added == 0
    assert "names a file '../../../secret'" in next(iter(done.damaged.values()))


def test_the_command_line_checks_merges_and_packs(store: Store, tmp_path: Path, here: Run) -> None:
    checked = here("store", "check", "--store", store.root)
    assert (checked.returncode, checked.stdout) == (0, "5 results are whole, 0 are damaged\n")
    assert here("store", "export", "--store", store.root, "--to", "a.zip").stdout == "5 results packed: a.zip\n"
    merged = here("store", "merge", "a.zip", "--store", "new")
    assert (merged.returncode, merged.stdout) == (0, "5 results added, 0 were there already\n")
    (tmp_path / "new" / "trials" / make_result(0).id / "result.json").write_text("{")
    assert here("store", "check", "--store", "new").returncode == 1
    for arguments in (["merge", "absent"], ["export", "--to", "a.tar"], ["check", "--store", "absent"], ["chekc"]):
        refused = here("store", *arguments)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
