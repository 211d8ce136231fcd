"""Where a result came from: versions, commit, machine. Nothing here takes part in a trial's identity."""

import functools
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path


@functools.cache
def environment() -> dict[str, str]:
    """Versions, commit and machine, read once a process, without importing what it names."""
    return {
        "normlab_version": metadata.version("normlab"),
        "commit": source_commit(),
        "torch": metadata.version("torch"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": str(os.cpu_count()),
    }


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


@functools.cache
def accelerator(device: str) -> str:
    """The name of a GPU; empty for the processor itself."""
    if device == "cpu":
        return ""
    import torch

    return torch.cuda.get_device_name(device)


def source_commit() -> str:
    """The commit of normlab's own checkout, with `+changes` where files differ from it; empty where it is installed."""
    package = Path(__file__).resolve().parent
    top = _output("git", "-C", str(package), "rev-parse", "--show-toplevel")
    if not top or Path(top) / "src" / "normlab" != package:
        return ""
    commit = _output("git", "-C", top, "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "-C", top, "status", "--porcelain", "--", "src")
    return commit + ("+changes" if commit and changed else "")


class EnergyMeter:
    """Joules that the processor's packages used since the last reading, by Linux's powercap counters (RAPL); None where
    there are none, or this user may not read them. Memory, GPUs and the rest of the machine are not in it."""

    def __init__(self, root: Path = Path("/sys/class/powercap")) -> None:
        # Packages have one colon in their name, their parts, which are in them already, two.
        self._places = sorted(path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1)
        self._last = self._counters()

    def joules(self) -> float | None:
        """Since the last call; counters that began again at 0 are reckoned with."""
        before, self._last = self._last, self._counters()
        if before is None or self._last is None:
            return None
        used = 0
        for place, start, end in zip(self._places, before, self._last, strict=True):
            used += end - start if end >= start else end - start + int((place / "max_energy_range_uj").read_text())
        return used / 1e6

    def _counters(self) -> list[int] | None:
        try:
            return [int((place / "energy_uj").read_text()) for place in self._places] or None
        except (OSError, ValueError):
            return None


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
