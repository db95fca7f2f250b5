"""Bringing the names that another program gives its tensors to the network's: tables of patterns, and parts put together."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from backbones.ledger import first
from mae_bench.core.errors import InputError

# What `fuse` looks for in translated names.
PARTS = re.compile(r"(?P<attention>.+\.)(?P<part>[qkv])\.(?P<kind>weight|bias)")


@dataclass
class Translated:
    """Tensors of a file under the network's names, changed step by step until they are the network's."""

    path: Path
    """For messages."""
    state: dict[str, Tensor]
    origin: dict[str, tuple[str, ...]]
    """What the file calls each name in `state`: several where parts were put together."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Tensors of the file left out, with the reason."""

    @property
    def renamed(self) -> frozenset[str]:
        """Names in `state` that are not the file's own."""
        return frozenset(name for name, names in self.origin.items() if names != (name,))

    def replace(self, name: str, tensor: Tensor, *used: str) -> None:
        """Put a tensor in the place of `name` and of the names it was made of."""
        names = tuple(dict.fromkeys(old for part in (name, *used) for old in self.origin.get(part, ())))
        for part in (name, *used):
            self.state.pop(part, None)
            self.origin.pop(part, None)
        self.state[name], self.origin[name] = tensor, names

    def files(self, *names: str) -> str:
        """What the file calls these names, for messages."""
        return first([old for name in names for old in self.origin.get(name, (name,))])


def translate(
    path: Path, state: Mapping[str, Tensor], rules: Mapping[str, str], dropped: Mapping[str, str] | None = None
) -> Translated:
    """Give tensors the network's names.

    Args:
        path: for messages.
        state: tensors by the file's names.
        rules: pattern of a whole name -> the network's name for it (`re.Match.expand`); the first that fits counts. A name
            that fits none stays as it is, and the ledger refuses it if the network has none like it.
        dropped: pattern of the beginning of a name -> why such tensors are left out; looked at before the rules.

    Raises:
        InputError: two tensors for one name.
    """
    reasons = {name: _reason(name, dropped or {}) for name in state}
    found: dict[str, str] = {}
    for old in state:
        if reasons[old]:
            continue
        new = _renamed(old, rules)
        if new in found:
            raise InputError(f"{path}: {found[new]} and {old} are the same tensor of the network, {new}; save one of them")
        found[new] = old
    return Translated(
        path,
        {new: state[old] for new, old in found.items()},
        {new: (old,) for new, old in found.items()},
        {name: why for name, why in reasons.items() if why},
    )


def fuse(translated: Translated, *, zero_biases: str = "") -> None:
    """Put queries, keys and values, named `...q.weight`, `...k.bias` and so on, together into timm's `...qkv`.

    Args:
        translated: is changed.
        zero_biases: letters of the parts that may lack a bias where the others have one; it is zero (BEiT has no key bias).

    Raises:
        InputError: a part is missing, or the parts do not fit together.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for name in translated.state:
        match = PARTS.fullmatch(name)
        if match:
            found.setdefault((match["attention"], match["kind"]), set()).add(match["part"])
    for (attention, kind), parts in found.items():
        if kind == "bias":
            for part in set(zero_biases) - parts:
                _add_zeros(translated, attention, part, sorted(parts)[0])
        _join(translated, attention, kind)


def gate_first(translated: Translated, gate: str, value: str, into: str) -> None:
    r"""Put the two first layers of a gated MLP together as timm's `SwiGLUPacked` has them: gate, then value.

    Args:
        translated: is changed; names without such layers are passed over.
        gate: pattern of a whole name, such as `(blocks\.\d+\.mlp\.)w1\.(weight|bias)`.
        value: what that name is for the value (`re.Match.expand`).
        into: what it is for both.
    """
    for name in list(translated.state):
        match = re.fullmatch(gate, name)
        if match:
            _stack(translated, match.expand(into), [name, match.expand(value)])


def _reason(name: str, dropped: Mapping[str, str]) -> str:
    return next((why for pattern, why in dropped.items() if re.match(pattern, name)), "")


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for pattern, new in rules.items():
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(new)
    return name


def _add_zeros(translated: Translated, attention: str, part: str, like: str) -> None:
    """A bias of zeros; nothing of the file is behind it."""
    name = f"{attention}{part}.bias"
    translated.state[name] = torch.zeros_like(translated.state[f"{attention}{like}.bias"])
    translated.origin[name] = ()


def _join(translated: Translated, attention: str, kind: str) -> None:
    _stack(translated, f"{attention}qkv.{kind}", [f"{attention}{part}.{kind}" for part in "qkv"])


def _stack(translated: Translated, into: str, names: list[str]) -> None:
    """Put tensors on top of each other."""
    state = translated.state
    missing = [name for name in names if name not in state]
    if missing:
        there = [name for name in names if name in state]
        raise InputError(
            f"{translated.path}: has {translated.files(*there)} and not what goes with it for {into} ({first(missing)} missing)"
        )
    tensors = [state[name] for name in names]
    if len({(tensor.shape[1:], tensor.dtype, tensor.ndim) for tensor in tensors}) > 1 or tensors[0].ndim == 0:
        shapes = ", ".join(f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for tensor in tensors)
        raise InputError(f"{translated.path}: {translated.files(*names)} do not fit together ({shapes})")
    translated.replace(into, torch.cat(tensors), *names)
