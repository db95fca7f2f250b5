"""From a file to weights that are known to fit: every tensor accounted for, every number finite."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from backbones.families import Converted
from backbones.ledger import Ledger, compare
from backbones.reading import RawCheckpoint
from backbones.zoo import Zoo
from mae_bench.core.errors import InputError


def check(raw: RawCheckpoint, converted: Converted, zoo: Zoo) -> tuple[dict[str, Tensor], Ledger]:
    """Check converted tensors against the network they are said to be of.

    Returns:
        The weights in float32, and what became of every tensor of the file.

    Raises:
        InputError: tensors missing, left over, of the wrong shape, not floating point, or not finite.
    """
    wanted = zoo.weights_of(zoo.empty(converted.arch, converted.spec))
    cast = {name for name, tensor in converted.state.items() if tensor.dtype != torch.float32}
    ledger = compare(converted.state, wanted, cast | converted.renamed, {**raw.dropped, **converted.dropped})
    ledger = replace(ledger, unexpected=(*ledger.unexpected, *raw.unexplained))
    arch = zoo.name_of(converted.arch)
    ledger.check(raw.path, arch)
    _check_shapes(raw.path, converted.state, wanted, arch, zoo)
    for name, tensor in converted.state.items():
        _check_numbers(raw.path, name, tensor)
    notes = (*converted.notes, *_casts(converted.state), *_zeros(converted.state), *_stripped(raw))
    return {name: tensor.to(torch.float32) for name, tensor in converted.state.items()}, replace(ledger, notes=notes)


def _check_shapes(path: Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], arch: str, zoo: Zoo) -> None:
    wrong = [name for name in wanted if state[name].shape != wanted[name].shape]
    if not wrong:
        return
    name = wrong[0]
    raise InputError(
        f"{path}: {name} is {tuple(state[name].shape)}, and {arch} needs {tuple(wanted[name].shape)} "
        f"({len(wrong)} tensors differ); the file looks like {zoo.looks_like(path, state)}"
    )


def _check_numbers(path: Path, name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise InputError(f"{path}: {name} holds {_dtype(tensor)}, not floating point; save weights that are not quantised")
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


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
