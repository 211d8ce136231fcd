"""The diagram of a network: every layer is there with its shape, and nothing lies on anything else."""

import itertools
from xml.etree import ElementTree

import pytest

from normlab.diagram import BAR_WIDTH, ROW_WIDTH, draw_network, layout
from normlab.errors import UsageError
from normlab.pictures import picture

NETWORKS = [
    ("64K-4C3B-256D-Dropout0.5-10D", 32),
    ("8K-2C2B-10D", 8),
    ("256K-4C3B-1024D-Dropout0.5-10D", 32),
    ("16K-2C6B-1024D-Dropout0.5-512D-Dropout0.25-1000D", 224),
    ("8K-64C1B-10D", 32),
    ("10D", 8),
]


def test_a_network_is_its_layers_in_order_with_their_shapes() -> None:
    bars = layout("64K-4C2B-256D-Dropout0.5-10D", 3, 32, "batch", "before_activation", "leaky_relu")
    assert [bar.text for bar in bars] == [
        "input", "3×3 convolution, 64", "batch norm", "leaky ReLU", "2×2 max-pool", "3×3 convolution, 128",
        "batch norm", "leaky ReLU", "2×2 max-pool", "flatten", "dense, 256", "leaky ReLU", "dropout 0.5", "dense, 10",
        "softmax",
    ]  # fmt: skip
    assert [bar.shape for bar in bars if bar.shape] == [
        "3×32×32", "64×32×32", "64×16×16", "128×16×16", "128×8×8", "8192", "256", "256", "10",
    ]  # fmt: skip
    assert {bar.repeats for bar in bars if bar.kind == "convolution"} == {4}


@pytest.mark.parametrize(
    ("norm", "position", "expected"),
    [
        ("none", "before_activation", ["convolution", "activation"]),
        ("renorm", "before_activation", ["convolution", "norm", "activation"]),
        ("mean_only", "after_activation", ["convolution", "activation", "norm"]),
    ],
)
def test_the_norm_stands_where_the_network_has_it(norm: str, position: str, expected: list[str]) -> None:
    bars = layout("8K-2C1B-10D", 1, 8, norm, position, "relu")
    assert [bar.kind for bar in bars if bar.group == 1] == expected


@pytest.mark.parametrize(("notation", "size"), NETWORKS)
def test_bars_never_overlap_and_rows_fit_across_a_page(notation: str, size: int) -> None:
    bars = layout(notation, 3, size, "batch", "before_activation", "leaky_relu")
    for one, other in itertools.pairwise(bars):
        assert other.row > one.row or other.x >= one.x + BAR_WIDTH
    assert all(bar.x + BAR_WIDTH < ROW_WIDTH + 0.5 for bar in bars)


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_diagram_is_written_as_the_kind_its_name_asks_for(suffix: str) -> None:
    figure = draw_network(
        "8K-2C2B-10D", in_channels=1, image_size=8, norm="batch", norm_position="before_activation", activation="relu"
    )
    content = picture(figure, suffix)
    assert content.startswith({".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix])
    if suffix == ".svg":
        text = " ".join(ElementTree.fromstring(content).itertext())
        assert "block 2 (×2)" in text
        assert "16×4×4" in text


@pytest.mark.parametrize("notation", ["8K-2C9B-10D", "8Q"])
def test_a_network_that_cannot_be_is_refused(notation: str) -> None:
    with pytest.raises(UsageError):
        draw_network(
            notation, in_channels=1, image_size=8, norm="none", norm_position="before_activation", activation="relu"
        )
