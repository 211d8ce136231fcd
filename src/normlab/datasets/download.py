"""Downloads that resume: into a `.part` file, by HTTP ranges, checked by size and MD5, renamed at the end.

pooch, the field's library for this, starts over after every interruption; 170 MB on a poor line want to go on.
"""

import hashlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from normlab.datasets.places import cache_root, data_folders
from normlab.errors import UsageError
from normlab.processes import lock

BLOCK = 1 << 16
ATTEMPTS, TIMEOUT_SECONDS = 3, 30


@dataclass(frozen=True, kw_only=True)
class Download:
    file: str
    url: str
    num_bytes: int
    md5: str


def fetch(download: Download, refuse: Mapping[str, str] | None = None) -> Path:
    """The file: from `$NORMLAB_DATA`, the cache, or the network. `refuse` names files that may not stand in for it."""
    for place in data_folders():
        if (place / download.file).is_file():
            return place / download.file
    wrong = [
        (place / name, why)
        for place in data_folders()
        for name, why in (refuse or {}).items()
        if (place / name).exists()
    ]
    note = f" ({wrong[0][0]} is not used: {wrong[0][1]})" if wrong else ""
    advice = f"download {download.url} and put it into {data_folders()[0]}{note}"
    if os.environ.get("NORMLAB_OFFLINE", "0") not in ("", "0"):
        raise UsageError(f"{download.file} is not here and NORMLAB_OFFLINE forbids the network; {advice}")
    target = cache_root() / "data" / download.file
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with (cache_root() / f".{download.file}.lock").open("a") as file:
        lock(file)  # one process downloads, others wait for what it gets
        if not target.is_file():
            _fetch_part(download, part, advice)
            os.replace(part, target)
    return target


def _fetch_part(download: Download, part: Path, advice: str) -> None:
    for attempt in range(ATTEMPTS):
        try:
            _continue(download, part)
            break
        except OSError as error:  # a URLError is one
            if attempt == ATTEMPTS - 1:
                reason = getattr(error, "reason", error)
                raise UsageError(
                    f"{download.file}: the download failed ({reason}); try again to go on, or {advice}"
                ) from None
            time.sleep(attempt)
    digest = hashlib.md5()  # the checksum its authors publish
    with part.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != download.md5:
        part.unlink()
        raise UsageError(
            f"{download.file}: what was downloaded has the MD5 {digest.hexdigest()}, not {download.md5}; {advice}"
        )


def _continue(download: Download, part: Path) -> None:
    """Downloads what is missing of a part file."""
    have = part.stat().st_size if part.exists() else 0
    if have == download.num_bytes:
        return
    if have > download.num_bytes:
        part.unlink()
        have = 0
    import urllib.request  # takes a tenth of the time of `normlab status`

    request = urllib.request.Request(download.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        resumed = response.status == 206
        have = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            while block := response.read(BLOCK):
                have += len(block)
                if have > download.num_bytes:
                    raise OSError(f"more than the {download.num_bytes:,} bytes expected")
                file.write(block)
                _show(download, have)
    if have < download.num_bytes:
        raise OSError(f"the connection ended after {have:,} of {download.num_bytes:,} bytes")


def _show(download: Download, have: int) -> None:
    if sys.stderr.isatty() and (have // BLOCK % 16 == 0 or have == download.num_bytes):
        end = "\n" if have == download.num_bytes else ""
        print(
            f"\r{download.file}: {have / 1e6:,.0f} of {download.num_bytes / 1e6:,.0f} MB",
            end=end,
            file=sys.stderr,
            flush=True,
        )
