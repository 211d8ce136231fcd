"""Feeds a target by coverage: python -m tests.fuzz study --runs 100000. Needs Atheris; finds become crash-… files."""

import argparse
import sys
import warnings
from pathlib import Path

import atheris
import torch  # noqa: F401 - before instrumentation, for it is large

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("target")
parser.add_argument("--runs", type=int, default=100_000)
parser.add_argument("--length", type=int, default=4_000, help="Bytes of the longest input.")
arguments = parser.parse_args()

with atheris.instrument_imports(include=["normlab", "ruamel", "zipfile", "PIL", "safetensors"]):
    from tests.fuzz.targets import CORPUS, TARGETS

if arguments.target not in TARGETS:
    parser.error(f"unknown target {arguments.target!r}; allowed: {', '.join(TARGETS)}")
warnings.simplefilter("ignore")
seeds, found = CORPUS / arguments.target, Path(f"fuzz-{arguments.target}")
found.mkdir(exist_ok=True)
options = [
    f"-runs={arguments.runs}",
    f"-max_len={arguments.length}",
    "-timeout=10",
    "-rss_limit_mb=4000",
    "-print_final_stats=1",
]
atheris.Setup([sys.argv[0], *options, str(found), str(seeds)], TARGETS[arguments.target])
atheris.Fuzz()
