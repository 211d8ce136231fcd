"""A network's table: layers with output shapes, parameters and multiply-accumulates, counted on the network itself."""

from typing import Any

from normlab.network import build_network, count_parameters
from normlab.notation import layer_shapes, parse_notation
from normlab.trial import TrialSpec


def network_rows(spec: TrialSpec, in_channels: int) -> list[dict[str, Any]]:
    """One row a layer: its name, output shape, parameters and MACs of one image's forward pass."""
    image_size = spec.image_size or 32
    network = build_network(
        spec.network,
        norm=spec.norm,
        norm_position=spec.norm_position,
        norm_dense=spec.norm_dense,
        activation=spec.activation,
        slope=spec.slope,
        conv_bias=spec.conv_bias,
        in_channels=in_channels,
        image_size=image_size,
    )
    shapes = {row.name: row for row in layer_shapes(parse_notation(spec.network), in_channels, image_size)}
    rows, shape, macs = [], "", 0
    for name, module in network.named_children():
        if name in shapes:
            shape, macs = "×".join(map(str, shapes[name].shape)), shapes[name].macs
        rows.append({"layer": name, "output": shape, "parameters": count_parameters(module), "MACs": macs})
        macs = 0
    return rows
