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
    value = derive(*key)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.manual_seed(value)


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator of its own, seeded from a key."""
    return torch.Generator().manual_seed(derive(*key))
