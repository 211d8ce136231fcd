"""The results under docs/, made again by the present code from what they hold of each trial.

`python -m tests.committed` writes their reports anew after a change of the statistics or the words; figures and where
the results came from stay as they are.
"""

import json
import re
from concurrent.futures import Future
from pathlib import Path

from normlab.files import write_file
from normlab.grid import trials_by_arm
from normlab.report import ReportFigure, to_markdown, write_numbers
from normlab.result import Result
from normlab.store import Store
from normlab.study import Study
from normlab.table import StudyTable, read_table

FOLDERS = sorted(path.parent for path in (Path(__file__).parent.parent / "docs" / "results").rglob("results.json"))


def rebuilt(folder: Path, store: Store) -> StudyTable:
    """The table of a committed study, from the scores of its trials put into an empty store."""
    tree = json.loads((folder / "results.json").read_text())
    study = Study.load(f"paper/{tree['study']}", scale=tree["scale"], overrides=tree["overrides"])
    prints = {trial["data"]: trial["data_fingerprint"] for trial in tree["trials"]}
    known = {trial["id"]: trial for trial in tree["trials"]}
    store.require_writable()
    for _, row in trials_by_arm(study, prints.__getitem__):
        for trial in row:
            found = known[trial.id]
            assert found["state"] == "finished"
            metrics = {tree["metric"]: found["score"], "num_test": found["test_images"]}
            store.save(Result(id=trial.id, spec=trial.spec, status="finished", metrics=metrics))
    return read_table(study, store, prints.__getitem__, metric=tree["metric"], level=tree["level"])


def figures_of(report: str) -> list[ReportFigure]:
    """The figures that a report in Markdown shows."""
    return [
        ReportFigure(stem=stem, title=title, caption=caption, alt="", drawn=Future())
        for title, stem, caption in re.findall(r"^!\[(.*)\]\((.*)\.svg\)\n\n\*\1\. (.*)\*$", report, flags=re.M)
    ]


def report_of(folder: Path, table: StudyTable) -> str:
    """The report as it would be written now, with the provenance that stands in the committed one."""
    old = (folder / "report.md").read_text()
    part = re.compile(r"^## Provenance\n.*?(?=^## )", flags=re.M | re.S)
    (provenance,) = part.findall(old)
    return part.sub(lambda _: provenance, to_markdown(table.study, table, figures_of(old)))


def main() -> None:
    import tempfile

    for folder in FOLDERS:
        with tempfile.TemporaryDirectory() as place:
            table = rebuilt(folder, Store(Path(place)))
        text = report_of(folder, table)
        for path in [*folder.glob("*.csv"), *folder.glob("*.tex")]:
            path.unlink()
        write_numbers(table, folder)
        write_file(folder / "report.md", text.encode())


if __name__ == "__main__":
    main()
