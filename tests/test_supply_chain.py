"""What is installed is what was locked, by hash; nothing else is needed by what was locked."""

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ENTRIES = re.findall(
    r"^(\S+==[^\\\n]+?) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    text := (ROOT / "requirements.lock").read_text(),
    re.M,
)


def test_every_line_of_the_lock_is_a_version_with_its_hashes() -> None:
    lines = [line for line in text.splitlines() if line and not line.startswith("    --hash=sha256:")]
    assert len(lines) == len(ENTRIES) > 100
    assert not any("://" in line for line in lines)


def test_the_environment_of_the_tests_is_the_locked_one() -> None:
    locked = [Requirement(entry) for entry, _ in ENTRIES]
    there = [requirement for requirement in locked if requirement.marker is None or requirement.marker.evaluate()]
    wrong = [
        str(requirement) for requirement in there if metadata.version(requirement.name) not in requirement.specifier
    ]
    assert not wrong, f"differs from requirements.lock; run make test: {', '.join(wrong)}"


def test_the_lock_has_everything_that_normlab_and_its_tests_ask_for_but_torch() -> None:
    locked = {_plain(Requirement(entry).name) for entry, _ in ENTRIES}
    todo, seen = [Requirement("normlab[dev]")], {"normlab"}
    while todo:
        asked = todo.pop()
        for line in metadata.requires(asked.name) or []:
            requirement = Requirement(line)
            extras = asked.extras or {""}
            if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                continue
            if _plain(requirement.name) not in seen or requirement.extras:
                seen.add(_plain(requirement.name))
                todo.append(requirement)
    assert seen - locked <= {"normlab", "torch"} | {
        name for name in seen if name.startswith(("nvidia", "cuda", "triton"))
    }


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
