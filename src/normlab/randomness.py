"""Counter-based randomness: an independent generator for each (seed, purpose, counters), with no state to keep.

A trial's numbers depend on its seed alone, never on its cohort, its worker or what was drawn before; the same seed
gives the same initialization, order, dropout and augmentation in every arm where shapes allow, so arms are paired.
"""

import zlib

import numpy as np
import torch


def _sequence(seed: int, purpose: str, counters: tuple[int, ...]) -> np.random.SeedSequence:
    # crc32 is a fixed function of the word; Python's hash() changes from run to run.
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *counters])


def numpy_generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A NumPy generator for one purpose, such as `order`, and counters, such as the epoch. A last counter of 0 is as
    good as none (SeedSequence fills up with zeros)."""
    return np.random.Generator(np.random.Philox(_sequence(seed, purpose, counters)))


def torch_generator(seed: int, purpose: str, *counters: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator for one purpose and counters. Devices draw different numbers from one seed."""
    generator = torch.Generator(device=device)
    begin(generator, seed, purpose, *counters)
    return generator


def begin(generator: torch.Generator, seed: int, purpose: str, *counters: int) -> None:
    """Puts a torch generator where `torch_generator` would make a new one: a CUDA graph goes on drawing from it."""
    generator.manual_seed(int(_sequence(seed, purpose, counters).generate_state(1, np.uint64)[0] >> 1))
