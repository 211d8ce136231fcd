"""What stands under docs/results is what the present code says of the same trials."""

import json
from pathlib import Path

import pytest

from normlab.rows import to_json
from normlab.store import Store
from tests.committed import FOLDERS, rebuilt, report_of


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_numbers_and_words_are_those_of_this_version(folder: Path, tmp_path: Path) -> None:
    table = rebuilt(folder, Store(tmp_path))
    assert json.loads((folder / "results.json").read_text()) == json.loads(to_json(table))
    assert (folder / "report.md").read_text() == report_of(folder, table)
