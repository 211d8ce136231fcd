"""A trained network, out of the store and ready for use: of what `--save-weights` and `normlab train` keep."""

from pathlib import Path

from safetensors.torch import load

from normlab import datasets
from normlab.errors import UsageError
from normlab.network import Network
from normlab.step import make_network
from normlab.store import Store, as_store


def load_network(trial_id: str, *, store: Store | str | Path | None = None) -> Network:
    """The network of a finished trial, in evaluation mode: images [N, C, S, S] → logits [N, K], S being the
    `image_size` it was trained at, pixels fractions of 255 (minus mean by deviation of the training images where the
    trial says `pixels: standardized`), classes in the order of `data show`.

    Raises UsageError where there is no such trial, its weights were not kept or are damaged, or its data are not here.
    """
    place, whose = as_store(store), f"trial '{trial_id}': "
    try:
        result = place.load(trial_id)
        content = place.weights(result) if result else None
    except ValueError as error:
        raise UsageError(f"{whose}{error}") from None
    if result is None:
        raise UsageError(f"{whose}{place.root} has no such result; normlab plan --json shows the ids")
    if content is None:
        raise UsageError(f"{whose}its weights were not kept; train it in another store with --save-weights")
    weights, spec = load(content), result.spec
    if not weights:
        raise UsageError(f"{whose}it diverged, and has no weights")
    network = make_network([spec], datasets.describe(spec.data, image_size=spec.image_size), 1)
    network.load_state_dict(weights)
    return network.eval()
