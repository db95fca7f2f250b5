"""From a file to weights that are known to fit: every tensor accounted for, every number finite."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from backbones.families import Converted
from backbones.ledger import Ledger, compare, first
from backbones.reading import RawCheckpoint
from backbones.zoo import Zoo
from mae_bench.core.errors import InputError
from mae_bench.core.plural import counted

NAMED = 20
"""How many names a note gives."""


def check(raw: RawCheckpoint, converted: Converted, zoo: Zoo, *, allow_partial: bool = False) -> tuple[dict[str, Tensor], Ledger]:
    """Check converted tensors against the network they are said to be of.

    Args:
        raw: what was read.
        converted: what its family made of it.
        zoo: what makes the network.
        allow_partial: leave tensors out that nobody knows, and draw those that are missing from seed 0.

    Returns:
        The weights in float32, which may still be mapped, and what became of every tensor of the file.

    Raises:
        InputError: tensors missing, left over, of the wrong shape, not floating point, or not finite.
    """
    wanted = zoo.weights_of(zoo.empty(converted.arch, converted.spec))
    ledger = _ledger(raw, converted, wanted)
    arch = zoo.name_of(converted.arch)
    if not allow_partial:
        ledger.check(raw.path, arch)
    state = {name: tensor for name, tensor in converted.state.items() if name in wanted}
    _check_shapes(raw, state, wanted, arch, zoo)
    for name, tensor in state.items():
        _check_numbers(raw.path, name, tensor)
    notes = (*raw.notes, *converted.notes, *_casts(state), *_zeros(state), *_stripped(raw), *_partial(ledger))
    weights = {name: tensor.to(torch.float32) for name, tensor in state.items()}
    if ledger.missing:
        drawn = zoo.initial_weights(converted.arch, 0)
        weights |= {name: drawn[name] for name in ledger.missing}
    return weights, replace(ledger, notes=notes)


def _ledger(raw: RawCheckpoint, converted: Converted, wanted: Mapping[str, Tensor]) -> Ledger:
    cast = {name: f"cast from {_dtype(tensor)}" for name, tensor in converted.state.items() if tensor.dtype != torch.float32}
    renamed = dict.fromkeys(converted.renamed, "renamed or rearranged")
    both = {name: f"{renamed[name]}, {cast[name]}" for name in cast.keys() & renamed.keys()}
    ledger = compare(converted.state, wanted, cast.keys() | renamed.keys(), {**raw.dropped, **converted.dropped})
    shapes = {name: tuple(tensor.shape) for name, tensor in raw.state.items() if name in converted.dropped}
    return replace(
        ledger,
        unexpected=(*ledger.unexpected, *raw.unexplained),
        reasons={**renamed, **cast, **both},
        shapes={**raw.shapes, **shapes, **ledger.shapes},
    )


def _check_shapes(raw: RawCheckpoint, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], arch: str, zoo: Zoo) -> None:
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if not wrong:
        return
    name = wrong[0]
    raise InputError(
        f"{raw.path}: {name} is {tuple(state[name].shape)}, and {arch} needs {tuple(wanted[name].shape)} "
        f"({len(wrong)} tensors differ); the file looks like {zoo.looks_like(raw.path, state, **raw.facts)}"
    )


def _check_numbers(path: Path, name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise InputError(f"{path}: {name} holds {_dtype(tensor)}, not floating point; save weights that are not quantised")
    # A sum passes over the numbers once and keeps none; only where it is not finite, which large numbers do, too, it is counted.
    if math.isfinite(tensor.sum(dtype=torch.float32).item()):
        return
    bad = tensor.numel() - int(tensor.to(torch.float32).isfinite().sum())
    if bad:
        raise InputError(f"{path}: {name} has {bad} values that are NaN or infinite; take an earlier checkpoint")


def _casts(state: Mapping[str, Tensor]) -> list[str]:
    types = sorted({_dtype(tensor) for tensor in state.values()} - {"float32"})
    return [f"cast to float32 from {', '.join(types)}"] if types else []


def _zeros(state: Mapping[str, Tensor]) -> list[str]:
    return [] if any(tensor.any() for tensor in state.values()) else ["warning: every number of the file is zero"]


def _stripped(raw: RawCheckpoint) -> list[str]:
    return [f"took {raw.prefix!r} off the names of the network"] if raw.prefix else []


def _partial(ledger: Ledger) -> list[str]:
    """What was allowed to be incomplete."""
    notes = []
    if ledger.missing:
        names = first(ledger.missing, NAMED)
        notes.append(f"warning: partial load: {counted(len(ledger.missing), 'missing tensor')} drawn from seed 0: {names}")
    if ledger.unexpected:
        names = first(ledger.unexpected, NAMED)
        notes.append(f"warning: partial load: {counted(len(ledger.unexpected), 'unexpected tensor')} left out: {names}")
    return notes


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
