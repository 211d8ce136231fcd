"""The notation of a network, `64K-4C3B-256D-Dropout0.5-10D`, parsed and printed, and its shapes, weights and work.

`64K-4C3B`: 3 blocks of 4 convolutions (3×3, stride 1, padding same), 64 kernels in the first block and twice as many
in each further one, a 2×2 max-pool of stride 2 at the end of each block. `256D`: a dense layer of 256 units.
`Dropout0.5`: drops half of the units before it. The last dense layer gives the classes. Imports no torch.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from normlab.errors import UsageError, nearest

EXAMPLE = "64K-4C3B-256D-Dropout0.5-10D"
# Chosen far above every network in use: a typo of a digit or two must not allocate the machine's memory.
MAX_UNITS, MAX_CONVOLUTIONS, MAX_BLOCKS = 65_536, 64, 16


@dataclass(frozen=True, kw_only=True)
class ConvBlocks:
    """`kernels`K-`convolutions`C`blocks`B: kernels double from block to block."""

    kernels: int
    convolutions: int
    blocks: int

    def __str__(self) -> str:
        return f"{self.kernels}K-{self.convolutions}C{self.blocks}B"


@dataclass(frozen=True, kw_only=True)
class Dense:
    units: int

    def __str__(self) -> str:
        return f"{self.units}D"


@dataclass(frozen=True, kw_only=True)
class Dropout:
    rate: float

    def __str__(self) -> str:
        return f"Dropout{self.rate:g}"


Layer = ConvBlocks | Dense | Dropout


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One row of a network's table. `shape` is (channels, height, width) or (features,), without the batch."""

    name: str
    kind: str  # convolution, pool, flatten, dense, dropout
    shape: tuple[int, ...]
    weights: int = 0  # elements of the kernel, without the bias
    biases: int = 0
    macs: int = 0  # multiply-accumulates of one image's forward pass
    rate: float = 0.0  # of a dropout


@functools.lru_cache(maxsize=1024)
def parse_notation(text: str) -> tuple[Layer, ...]:
    """Reads the notation into layer records; a `UsageError` names the wrong token, why, and a valid spelling."""
    tokens = text.strip().split("-")
    layers: list[Layer] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if match := re.fullmatch(r"([1-9][0-9]{0,5})K", token):
            following = tokens[position + 1] if position + 1 < len(tokens) else ""
            layers.append(_blocks(text, token, int(match[1]), following))
            if position:
                raise UsageError(f"network '{text}': '{token}' must come first, as in {EXAMPLE}")
            position += 1
        elif match := re.fullmatch(r"([1-9][0-9]{0,5})D", token):
            layers.append(Dense(units=_within(text, token, int(match[1]), MAX_UNITS, "units")))
        elif match := re.fullmatch(r"Dropout(0|0?\.[0-9]+)", token):
            layers.append(Dropout(rate=float(match[1])))
        else:
            raise UsageError(f"network '{text}': '{token}' is not a layer{_spelling(token)}; write e.g. {EXAMPLE}")
        position += 1
    if not isinstance(layers[-1], Dense):
        raise UsageError(f"network '{text}': the last token, '{tokens[-1]}', must be the classes, such as 10D")
    if layers[-1].units < 2:
        raise UsageError(f"network '{text}': '{tokens[-1]}' is one class, and there is nothing to tell apart; write 2D")
    return tuple(layers)


def print_notation(layers: tuple[Layer, ...]) -> str:
    return "-".join(map(str, layers))


def num_classes(layers: tuple[Layer, ...]) -> int:
    last = layers[-1]
    assert isinstance(last, Dense)
    return last.units


def dropout_rates(text: str) -> tuple[float, ...]:
    """The rates of a network's dropout layers, in their order."""
    return tuple(layer.rate for layer in parse_notation(text) if isinstance(layer, Dropout))


def layer_shapes(layers: tuple[Layer, ...], in_channels: int, image_size: int) -> Iterator[LayerShape]:
    """The rows of a network's table, in the order of computation, for square images of `image_size` pixels.

    Raises `UsageError` where a pool would leave a map of no pixels.
    """
    channels, size, features, dense, dropout = in_channels, image_size, 0, 0, 0
    for layer in layers:
        match layer:
            case ConvBlocks():
                for block in range(1, layer.blocks + 1):
                    out_channels = layer.kernels * 2 ** (block - 1)
                    for convolution in range(1, layer.convolutions + 1):
                        weights = 9 * channels * out_channels
                        name = f"block{block}_convolution{convolution}"
                        map_shape = (out_channels, size, size)
                        yield LayerShape(
                            name=name, kind="convolution", shape=map_shape, weights=weights, biases=out_channels,
                            macs=weights * size * size,
                        )  # fmt: skip
                        channels = out_channels
                    if size < 2:
                        raise UsageError(
                            f"network '{print_notation(layers)}': {image_size}×{image_size} images are down to "
                            f"{size}×{size} in block {block}, and its pool would leave nothing; "
                            + (
                                f"write at most {layer.convolutions}C{block - 1}B, or larger images"
                                if block > 1
                                else "write larger images, or dense layers alone"
                            )
                        )
                    size //= 2
                    yield LayerShape(name=f"block{block}_pool", kind="pool", shape=(channels, size, size))
            case Dense():
                if not features:
                    features = channels * size * size
                    yield LayerShape(name="flatten", kind="flatten", shape=(features,))
                dense += 1
                weights = features * layer.units
                features = layer.units
                yield LayerShape(
                    name=f"dense{dense}",
                    kind="dense",
                    shape=(features,),
                    weights=weights,
                    biases=features,
                    macs=weights,
                )
            case Dropout():
                dropout += 1
                shape: tuple[int, ...] = (features,) if features else (channels, size, size)
                yield LayerShape(name=f"dropout{dropout}", kind="dropout", shape=shape, rate=layer.rate)


def forward_macs(text: str, in_channels: int, image_size: int) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image; training costs about 3 times as much."""
    return sum(row.macs for row in layer_shapes(parse_notation(text), in_channels, image_size))


def _blocks(text: str, token: str, kernels: int, following: str) -> ConvBlocks:
    match = re.fullmatch(r"([1-9][0-9]{0,2})C([1-9][0-9]{0,2})B", following)
    if not match:
        given = f"'{following}' after '{token}'" if following else f"'{token}' alone"
        hint = _spelling(following) or " (write 4C3B for 3 blocks of 4 convolutions)"
        raise UsageError(f"network '{text}': {given} does not say the blocks{hint}; write e.g. {EXAMPLE}")
    convolutions = _within(text, following, int(match[1]), MAX_CONVOLUTIONS, "convolutions a block")
    blocks = _within(text, following, int(match[2]), MAX_BLOCKS, "blocks")
    _within(text, token, kernels * 2 ** (blocks - 1), MAX_UNITS, f"kernels in the last of {blocks} blocks")
    return ConvBlocks(kernels=kernels, convolutions=convolutions, blocks=blocks)


def _within(text: str, token: str, value: int, limit: int, what: str) -> int:
    if value > limit:
        raise UsageError(f"network '{text}': '{token}' asks for {value:,} {what}; at most {limit:,} are allowed")
    return value


def _spelling(token: str) -> str:
    """The nearest valid spelling of a token, from the numbers in it and the letters around them."""
    if not token.isascii():
        return " (write plain letters and digits)"
    numbers = re.findall(r"\d*\.?\d+", token)
    if len(numbers) == 2 and 0 in map(float, numbers):
        return " (each number is at least 1)"
    letters = re.sub(r"[\d.]", "", token).lower()
    if len(numbers) == 2 and sorted(letters) == ["b", "c"]:
        first, second = numbers if letters == "cb" else reversed(numbers)
        right = f"{first}C{second}B"
        return (
            f" (did you mean '{right}'?)" if right != token else f" (write the channels before it, as in 64K-{right})"
        )
    if len(numbers) == 1:
        number = numbers[0]
        if letters in {"k", "d"} and "." not in number and token != number + letters.upper():
            return f" (did you mean '{number}{letters.upper()}'?)"
        if not letters and "." not in number:
            return f" (did you mean '{number}D'?)"
        if letters == "dropout" or nearest(letters, ["dropout", "drop"]):
            rate = float(number)
            rate = rate / 100 if 1 < rate < 100 and rate.is_integer() else rate  # per cent
            return f" (did you mean 'Dropout{rate:g}'?)" if 0 <= rate < 1 else " (a dropout rate is below 1)"
    return ""
