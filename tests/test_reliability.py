"""The page of faults says what the tests do: every fault has one or a reason, and every test that it names is there."""

import re

from tests.faults import FAULTS, PROMISES
from tests.reliability import PAGE, page


def test_every_fault_has_a_test_or_a_reason_why_it_cannot_come() -> None:
    text = "".join(path.read_text() for path in PAGE.parent.parent.glob("tests/test_*.py"))
    marked = {int(number) for number in re.findall(r"@pytest\.mark\.fault\((\d+)\)", text)}
    assert set(FAULTS) == set(range(1, 43))
    assert marked == {number for number, fault in FAULTS.items() if fault.applies}
    assert {promise for fault in FAULTS.values() for promise in fault.promise.split()} == set(PROMISES)


def test_the_page_names_exactly_the_tests_that_are_there_and_all_passed() -> None:
    written = PAGE.read_text()
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \| (.*) \|$", written, flags=re.M)
    named = {(int(number), test) for number, tests, _ in rows for test in re.findall(r"`([^`]+)`", tests)}
    found = set()
    for path in PAGE.parent.parent.glob("tests/test_*.py"):
        for decorators, name in re.findall(
            r"((?:^@.*\n(?:(?!^def |^@).*\n)*)+)^def (test_\w+)", path.read_text(), flags=re.M
        ):
            for number in re.findall(r"@pytest\.mark\.fault\((\d+)\)", decorators):
                found.add((int(number), f"{path.name}::{name}"))
    assert named == found
    assert {outcome for _, _, outcome in rows} <= {"passed", "–"}


def test_the_rest_of_the_page_is_what_would_be_written_now() -> None:
    written = PAGE.read_text()
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \| (.*) \|$", written, flags=re.M)
    results = {(int(n), test): {outcome} for n, tests, outcome in rows for test in re.findall(r"`([^`]+)`", tests)}
    anew = page(results)
    assert [line for line in written.splitlines() if "Last run: " not in line] == [
        line for line in anew.splitlines() if "Last run: " not in line
    ]


def test_a_fault_whose_test_failed_is_shown_as_such() -> None:
    text = page({(1, "a.py::b"): {"passed", "failed"}, (2, "a.py::c"): {"passed"}})
    assert re.search(r"^\| 1 \|.*\| `a.py::b` \| failed passed \|$", text, flags=re.M)
    assert re.search(r"^\| 2 \|.*\| `a.py::c` \| passed \|$", text, flags=re.M)
    assert re.search(r"^\| 12 \|.*\| not applicable \| – \|$", text, flags=re.M)
