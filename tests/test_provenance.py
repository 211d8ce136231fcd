"""Where results come from: the energy of the processor, as far as the machine tells."""

from pathlib import Path

import pytest

from normlab.provenance import EnergyMeter


def package(root: Path, name: str, microjoules: int) -> Path:
    place = root / name
    place.mkdir(exist_ok=True)
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text("10000000\n")
    return place


def test_the_energy_of_all_packages_is_summed_and_that_of_their_parts_is_not_counted_twice(tmp_path: Path) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        package(tmp_path, name, 1_000_000)
    meter = EnergyMeter(tmp_path)
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        package(tmp_path, name, 3_000_000)
    assert meter.joules() == pytest.approx(4.0)
    assert meter.joules() == 0


def test_a_counter_that_begins_again_is_reckoned_with(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", 9_000_000)
    meter = EnergyMeter(tmp_path)
    package(tmp_path, "intel-rapl:0", 500_000)
    assert meter.joules() == pytest.approx(1.5)


def test_without_counters_that_can_be_read_nothing_is_said(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path).joules() is None
    place = package(tmp_path, "intel-rapl:0", 1)
    meter = EnergyMeter(tmp_path)
    (place / "energy_uj").unlink()
    assert meter.joules() is None
