"""Randomness keyed by counters: what is drawn depends on (seed, purpose, counters) and on nothing before it.

So a resumed run draws what the unbroken run would have drawn, whatever the number of data workers.
"""

import random
from hashlib import blake2b

import numpy as np
import torch


def derive(*key: int | str) -> int:
    """A 63-bit seed from a key such as `(seed, "sample", epoch, index)`."""
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_all(*key: int | str) -> None:
    """Set the generators of Python, NumPy and torch (CPU and accelerators) from a key."""
    torch.manual_seed(seed_host(*key))


def seed_host(*key: int | str) -> int:
    """Set the generators that make samples, those of Python, NumPy and torch on the CPU, and give the seed.

    A fraction of the cost of `seed_all`, since `torch.manual_seed` asks every kind of accelerator.
    """
    value = derive(*key)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.default_generator.manual_seed(value)
    return value


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator of its own, seeded from a key."""
    return torch.Generator().manual_seed(derive(*key))
