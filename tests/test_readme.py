"""What the README shows works as it stands there, and the public names are where it says."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import Run
from tests.test_datasets import encoded, picture

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_study_in_the_readme_runs_with_the_commands_under_it(tmp_path: Path, normlab: Run, here: Run) -> None:
    (study,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len([line for line in study.splitlines() if line.strip()]) <= 12
    (tmp_path / "pets.yaml").write_text(study)
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                for i in range(20):
                    archive.writestr(f"{part}/{name}/{i}.png", encoded(picture(i)))
    commands = re.findall(r"^normlab ((?:plan|run|report|compare) pets\.yaml.*?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert len(commands) == 5
    small = ["epochs=1", "seeds=1", "learning_rate=1e-3", "network=2K-1C1B-2D"]
    for command in commands:
        words = [word for word in command.split() if not word.startswith("seeds=")]
        run = normlab if words[0] == "run" else here
        done = run(*words, *small, NORMLAB_DATA=str(tmp_path))
        assert done.returncode == 0, (command, done.stderr)


def test_every_module_stands_in_the_readmes_tree_and_the_other_way_round() -> None:
    root = Path(__file__).parent.parent / "src" / "normlab"
    modules = {path.name for path in root.glob("*.py")} - {"__init__.py", "__main__.py"}
    named = set(re.findall(r"\b([a-z_]+\.py)\b", README.split("## The flow")[1]))
    assert modules == named


def test_the_public_names_are_importable_and_importing_normlab_costs_nothing() -> None:
    code = (
        "import sys, normlab; assert not {'torch', 'numpy', 'pydantic'} & sys.modules.keys()\n"
        "from normlab import Study, TrialSpec, run, load_results, parse_notation, build_network, build_norm\n"
        "assert set(normlab.__all__) <= set(dir(normlab))\n"
        "try: normlab.absent\n"
        "except AttributeError: pass\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
