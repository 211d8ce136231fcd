"""The benchmark of a GPU on the CPU, with tiny networks: that it can be run where there is a GPU."""

import pytest
from benchmarks import gpu

from normlab import convolution


@pytest.mark.slow
def test_the_gpu_benchmark_measures_every_way_and_projects_the_hours_of_the_paper(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "SECONDS", 0.0)
    monkeypatch.setattr(gpu, "BATCHES", (4,))
    monkeypatch.setattr(gpu, "BOTH", 4)
    monkeypatch.setattr(gpu, "TOGETHER", (1, 2))
    monkeypatch.setattr(gpu, "STUDIES", ("learning-rate", "final"))
    monkeypatch.setattr("sys.argv", ["gpu", "--small", "--device", "cpu"])
    gpu.main()
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("| 8K-1C2B-16D-Dropout0.5-10D, 4, 2"))
    assert all(float(cell.replace(",", "")) > 0 for cell in row.split("|")[2 : 2 + len(convolution.WAYS)])
    assert "0 of 16 cases were not reached" in shown
    assert "One final model alone" in shown

    monkeypatch.setattr("sys.argv", ["gpu", "--small", "--device", "cpu", "--minutes", "0"])
    gpu.main()
    assert "16 of 16 cases were not reached" in capsys.readouterr().out
