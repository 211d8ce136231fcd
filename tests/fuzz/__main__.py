"""Feeds a target by coverage: python -m tests.fuzz study --runs 100000. Needs Atheris (pip install -e '.[fuzz]').

What crashes becomes a crash-… file; what reached something new goes to fuzz-TARGET/; `--keep` packs it into the corpus.
"""

import argparse
import sys
import warnings
import zipfile
from pathlib import Path

import atheris
import torch  # noqa: F401 - before instrumentation, for it is large

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("target")
parser.add_argument("--runs", type=int, default=100_000)
parser.add_argument("--length", type=int, default=4_000, help="Bytes of the longest input.")
parser.add_argument("--keep", action="store_true", help="Feed nothing; pack what was found into the corpus.")
arguments = parser.parse_args()

with atheris.instrument_imports(include=["normlab", "ruamel", "zipfile", "PIL", "safetensors"]):
    from tests.fuzz.targets import CORPUS, TARGETS

if arguments.target not in TARGETS:
    parser.error(f"unknown target {arguments.target!r}; allowed: {', '.join(TARGETS)}")
warnings.simplefilter("ignore")
seeds, found = CORPUS / arguments.target, Path(f"fuzz-{arguments.target}")
if arguments.keep:
    with zipfile.ZipFile(seeds / "found.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(found.iterdir()):
            archive.write(path, path.name)
    sys.exit()
found.mkdir(exist_ok=True)
if (seeds / "found.zip").exists():
    zipfile.ZipFile(seeds / "found.zip").extractall(found)
options = [
    f"-runs={arguments.runs}",
    f"-max_len={arguments.length}",
    "-timeout=10",
    "-rss_limit_mb=4000",
    "-print_final_stats=1",
]
atheris.Setup([sys.argv[0], *options, str(found), str(seeds)], TARGETS[arguments.target])
atheris.Fuzz()
