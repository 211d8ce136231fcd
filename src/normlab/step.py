"""One training step of T trials of one shape: the network they make together, forward, backward, update."""

from collections.abc import Iterator, Sequence

import torch

from normlab.batches import Images, fetch
from normlab.datasets import DataInfo
from normlab.functional import cross_entropy
from normlab.graphs import Replayed, cpu_recorder, cuda_recorder
from normlab.network import Network, build_network
from normlab.norms.renorm import ramp_for
from normlab.notation import dropout_rates
from normlab.optim import Optimizer
from normlab.randomness import begin
from normlab.trial import TrialSpec


class Step:
    """One training step of T trials: fetch, forward, loss, backward, update. Owns the place of the network, its
    optimizer and the generators of its dropout masks."""

    def __init__(self, specs: Sequence[TrialSpec], network: Network, data: Images) -> None:
        self._specs, self._data, device = specs, data, data.labels.device
        self.network = network.to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = Optimizer(network, specs)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=specs[0].precision == "bfloat16")
        for dropout in network.dropouts():
            dropout.generators = [torch.Generator(device) for _ in specs]

    def begin(self, epoch: int) -> None:
        """Dropout masks are from now on those of an epoch."""
        for layer, dropout in enumerate(self.network.dropouts()):
            for spec, generator in zip(self._specs, dropout.generators, strict=True):
                assert generator is not None
                begin(generator, spec.seed, "dropout", epoch, layer)

    def __call__(
        self, index_TB: torch.Tensor, warps_TB4: torch.Tensor | None, rates_T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch, as `draw_batches` has it, and learning rates [T] → mean loss [T] and correct answers [T]."""
        x, labels_BT = fetch(self._data, index_TB, warps_TB4)
        self.optimizer.zero_grad()
        with self.autocast:
            logits = self.network(x)
        logits_BTK = logits.to(torch.promote_types(logits.dtype, torch.float32)).view(*labels_BT.shape, -1)
        loss_T, hits_T = cross_entropy(logits_BTK, labels_BT)
        loss_T.sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(rates_T)
        return loss_T.detach(), hits_T

    def runner(self) -> Replayed:
        """The step as it is called again and again: recorded once and replayed."""
        generators = [generator for generator, _ in named_generators(self.network)]
        return Replayed(self, cuda_recorder(generators) if self._data.labels.is_cuda else cpu_recorder)


def make_network(specs: Sequence[TrialSpec], data: Images | DataInfo, total_steps: int) -> Network:
    """The initialized network of a cohort, for images like these."""
    spec = specs[0]
    settings: dict[str, object] = {"eps": spec.norm_eps, "momentum": [s.norm_momentum for s in specs]}
    if spec.norm == "renorm" and spec.renorm_schedule == "fraction":
        settings["schedule"] = ramp_for(total_steps)
    network = build_network(
        spec.network,
        norm=spec.norm,
        norm_position=spec.norm_position,
        norm_dense=spec.norm_dense,
        norm_settings=settings,
        activation=spec.activation,
        slope=[s.slope for s in specs],
        conv_bias=spec.conv_bias,
        in_channels=data.channels,
        image_size=data.image_size,
        num_trials=len(specs),
        seed=[s.seed for s in specs],
    )
    for position, dropout in enumerate(network.dropouts()):
        dropout.rates = tuple(dropout_rates(s.network)[position] for s in specs)
    return network


@torch.no_grad()
def take_over(wider: Step, narrower: Step, places: Sequence[int]) -> None:
    """Puts the trials at some places of a step, with statistics and moments, into a new one of these alone."""

    def share(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 0:  # a counter of all
            return tensor
        parts = tensor.chunk(wider.network.num_trials)
        return torch.cat([parts[place] for place in places])

    narrower.network.load_state_dict({name: share(value) for name, value in wider.network.state_dict().items()})
    for name, tensors in wider.optimizer.moments.items():
        for own, tensor in zip(narrower.optimizer.moments[name], tensors, strict=True):
            own.copy_(share(tensor))
    narrower.optimizer.steps = wider.optimizer.steps


def weights_of(network: Network, trial: int) -> dict[str, torch.Tensor]:
    """The parameters and buffers of one trial, as those of an ordinary network; references until they are saved."""
    share = {}
    for name, value in network.state_dict().items():
        share[name] = value if value.dim() == 0 else value.chunk(network.num_trials)[trial]
    return share


def named_generators(network: Network) -> Iterator[tuple[torch.Generator, str]]:
    """The generators of dropout masks, each with a name."""
    for layer, dropout in enumerate(network.dropouts()):
        for trial, generator in enumerate(dropout.generators):
            if generator is not None:
                yield generator, f"dropout.{layer}.{trial}"
