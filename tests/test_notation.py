"""The notation: what parses, what is refused and how it is explained, and the paper's table of sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normlab.errors import UsageError
from normlab.network import build_network, count_parameters
from normlab.notation import (
    ConvBlocks,
    Dense,
    Dropout,
    forward_macs,
    layer_shapes,
    num_classes,
    parse_notation,
    print_notation,
)


def test_the_papers_network_parses_into_its_layers() -> None:
    assert parse_notation("64K-4C3B-256D-Dropout0.5-10D") == (
        ConvBlocks(kernels=64, convolutions=4, blocks=3),
        Dense(units=256),
        Dropout(rate=0.5),
        Dense(units=10),
    )


blocks = st.builds(ConvBlocks, kernels=st.integers(1, 512), convolutions=st.integers(1, 9), blocks=st.integers(1, 6))
hidden = st.one_of(
    st.builds(Dense, units=st.integers(1, 5000)),
    st.builds(Dropout, rate=st.integers(0, 99).map(lambda hundredths: hundredths / 100)),
)


@given(
    st.builds(
        lambda b, h, k: (*b, *h, Dense(units=k)), st.lists(blocks, max_size=1), st.lists(hidden), st.integers(2, 99)
    )
)
def test_every_network_prints_back_to_what_it_was_parsed_from(layers: tuple[object, ...]) -> None:
    assert parse_notation(print_notation(layers)) == layers


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused_in_one_line(text: str) -> None:
    try:
        parse_notation(text)
    except UsageError as error:
        assert len(str(error)) > 10


INVALID = [
    ("64k-4C3B-10D", "'64k'", "did you mean '64K'?"),
    ("64K-4c3b-10D", "'4c3b'", "did you mean '4C3B'?"),
    ("64K-3B4C-10D", "'3B4C'", "did you mean '4C3B'?"),
    ("4C3B-10D", "'4C3B'", "write the channels before it, as in 64K-4C3B"),
    ("64K-4D", "'4D' after '64K'", "write 4C3B for 3 blocks of 4 convolutions"),
    ("64K-4C3B-256-10D", "'256'", "did you mean '256D'?"),
    ("64K-4C3B-256D-dropout0.5-10D", "'dropout0.5'", "did you mean 'Dropout0.5'?"),
    ("64K-4C3B-Droput0.5-10D", "'Droput0.5'", "did you mean 'Dropout0.5'?"),
    ("64K-4C3B-Dropout50-10D", "'Dropout50'", "did you mean 'Dropout0.5'?"),
    ("64K-10D", "'10D' after '64K'", "4C3B"),
    ("64K", "'64K' alone", "4C3B"),
    ("64K-4C3B", "'4C3B'", "such as 10D"),
    ("64K-4C3B-Dropout0.5", "'Dropout0.5'", "such as 10D"),
    ("10D-64K-4C3B-10D", "'64K'", "must come first"),
    ("", "''", "64K-4C3B"),
    ("64K-4C99B-10D", "'4C99B'", "at most 16"),
    ("60000K-1C3B-10D", "'60000K'", "at most 65,536"),
    ("64K--10D", "'64K' alone", "4C3B"),
    ("٣K-1C1B-10D", "'٣K'", "not a layer"),
]


@pytest.mark.parametrize(("text", "token", "advice"), INVALID)
def test_bad_notation_names_the_token_and_the_nearest_valid_spelling(text: str, token: str, advice: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_notation(text)
    assert token in str(caught.value)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_map_that_would_shrink_to_nothing_is_refused_with_what_fits() -> None:
    with pytest.raises(UsageError, match=r"down to 1×1 in block 6.*at most 3C5B"):
        list(layer_shapes(parse_notation("64K-3C6B-10D"), 3, 32))
    assert list(layer_shapes(parse_notation("64K-3C5B-10D"), 3, 32))


PAPER = [  # notation, classes' network, image size, flatten, parameters, extra with BN, MMAC
    ("64K-3C2B-256D-Dropout0.5-10D", 32, 8192, 2_544_650, 1_152, 173.7),
    ("64K-3C3B-256D-Dropout0.5-10D", 32, 4096, 2_971_402, 2_688, 267.1),
    ("64K-3C4B-256D-Dropout0.5-10D", 32, 2048, 8_346_890, 5_760, 360.9),
    ("64K-4C3B-256D-Dropout0.5-10D", 32, 4096, 3_745_994, 3_584, 380.3),
    ("64K-4C3B-256D-Dropout0.5-2D", 32, 4096, 3_743_938, 3_584, 380.3),
    ("64K-4C3B-256D-Dropout0.5-2D", 224, 200_704, 54_075_586, 3_584, 18_635.0),
]


@pytest.mark.parametrize(("text", "size", "flatten", "parameters", "with_norm", "mmac"), PAPER)
def test_sizes_equal_the_papers_table(
    text: str, size: int, flatten: int, parameters: int, with_norm: int, mmac: float
) -> None:
    rows = {row.name: row for row in layer_shapes(parse_notation(text), 3, size)}
    assert rows["flatten"].shape == (flatten,)
    assert sum(row.weights + row.biases for row in rows.values()) == parameters
    assert forward_macs(text, 3, size) / 1e6 == pytest.approx(mmac, rel=5e-4)
    assert count_parameters(build_network(text, norm="none", image_size=size)) == parameters
    assert count_parameters(build_network(text, norm="batch", image_size=size)) == parameters + with_norm


def test_the_final_network_with_norm_in_the_dense_layer_has_the_papers_size() -> None:
    text = "256K-4C3B-1024D-Dropout0.5-10D"
    network = build_network(text, norm="batch", norm_dense=True)
    assert count_parameters(network) == 59_859_722 + 16_384
    assert forward_macs(text, 3, 32) / 1e6 == pytest.approx(6063.7, rel=1e-4)


def test_kerass_elementwise_prelu_adds_a_slope_for_every_element() -> None:
    text = "64K-4C3B-256D-Dropout0.5-10D"
    plain = count_parameters(build_network(text, norm="none"))
    assert count_parameters(build_network(text, norm="none", activation="prelu_elementwise")) == plain + 459_008


def test_macs_of_4c3b_follow_the_closed_form() -> None:
    for width in (8, 16, 64):
        closed = 92_160 * width**2 + 44_032 * width + 2_560
        assert forward_macs(f"{width}K-4C3B-256D-Dropout0.5-10D", 3, 32) == closed


def test_the_last_dense_layer_gives_the_classes() -> None:
    assert num_classes(parse_notation("256D-7D")) == 7
