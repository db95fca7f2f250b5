"""Under which keys of a file the named tensors are: training programs put them beside optimizer state and settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from backbones import wrapping
from backbones.ledger import first
from backbones.pickles import Array
from mae_bench.core.config import nearest
from mae_bench.core.errors import InputError

# Keys under which weights are taken even where no network that is known is among them, so that the families can say what it is.
WRAPPERS = ("model", "state_dict", "model_state_dict", "model_ema", "ema", "teacher", "student", "module", "net", "encoder")
DEPTH = 3
"""How many keys deep it is looked."""

Path = tuple[str, ...]


@dataclass(frozen=True)
class Nested:
    """The named tensors of a file."""

    state: dict[str, Tensor]
    dropped: dict[str, str]
    """What is beside them, with the reason it is left out."""
    prefix: str = ""
    """The rest of `ckpt_key`: what the names of the wanted network begin with."""


def unnest(where: object, content: Any, ckpt_key: str = "") -> Nested:
    """Find the named tensors in what a file holds.

    Args:
        where: the file, for messages.
        content: what was unpickled or read.
        ckpt_key: the keys to go by, joined by dots; what follows the last one is the beginning of the names of the network.

    Raises:
        InputError: no named tensors, or networks under several keys.
    """
    if not isinstance(content, dict):
        kind = "tensor or array" if isinstance(content, Array) else type(content).__name__
        raise InputError(f"{where}: holds a {kind}, not named tensors; save model.state_dict()")
    path, prefix = _follow(where, content, ckpt_key) if ckpt_key else (_choose(where, content), "")
    inner = _at(content, path)
    state = _tensors(inner)
    dropped = {str(name): "not a tensor" for name in dict.keys(inner) if name not in state}
    shown = ".".join(path)
    for depth, key in enumerate(path):
        around = [name for name in _at(content, path[:depth]) if name != key]
        dropped |= {".".join((*path[:depth], str(name))): f"beside the weights, which are under {shown!r}" for name in around}
    return Nested(state, dropped, prefix)


def _choose(where: object, content: dict[Any, Any]) -> Path:
    """The keys of the one network, or of the weights of an unknown one."""
    found = {path: _tensors(_at(content, path)) for path in _paths(content)}
    networks = [path for path, state in found.items() if wrapping.prefixes(state)]
    if () in networks:
        return ()
    if not networks:
        networks = [path for path, state in found.items() if len(path) == 1 and path[0] in WRAPPERS and state]
    if len(networks) > 1:
        names = [".".join(path) for path in networks]
        raise InputError(f"{where}: weights under several keys ({first(names)}); choose one: add #ckpt_key={names[0]}")
    if networks:
        return networks[0]
    if found[()]:
        return ()
    keys = ", ".join(str(name)[:40] for name in list(content)[:5])
    raise InputError(f"{where}: no named tensors in it (its keys: {keys or 'none'}); save model.state_dict()")


def _follow(where: object, content: dict[Any, Any], ckpt_key: str) -> tuple[Path, str]:
    """Go down the keys that are named; what is left is a prefix of names."""
    path, rest, here = (), ckpt_key, content
    while rest:
        inner = {str(key): value for key, value in dict.items(here) if isinstance(key, str) and isinstance(value, dict)}
        # Longer keys first: a key may have a dot in it.
        key = next((key for key in sorted(inner, key=len, reverse=True) if rest == key or rest.startswith(f"{key}.")), None)
        if key is None:
            break
        path, rest, here = (*path, key), rest[len(key) + 1 :], inner[key]
    names = list(_tensors(here))
    if not path and not any(wrapping.begins(name, rest) for name in names):
        # Names of tensors may be given without the keys that lead to them, where these are no choice.
        for outer in _paths(content):
            if any(wrapping.begins(name, rest) for name in _tensors(_at(content, outer))):
                return outer, rest
    if not names:
        paths = [".".join(path) for path in _paths(content) if path and _tensors(_at(content, path))]
        hint = nearest(ckpt_key, paths) if paths else "it has no named tensors"
        raise InputError(f"{where}: no named tensors under ckpt_key={ckpt_key}; {hint}")
    if rest and not any(wrapping.begins(name, rest) for name in names):
        raise InputError(f"{where}: no tensor's name begins with {rest!r} of ckpt_key={ckpt_key}; the names are {first(names)}")
    return path, rest


def _paths(content: dict[Any, Any], path: Path = ()) -> Iterator[Path]:
    """Keys of the mappings in a file, the file itself first."""
    yield path
    if len(path) < DEPTH:
        for key, value in dict.items(content):
            if isinstance(key, str) and isinstance(value, dict):
                yield from _paths(value, (*path, key))


def _at(content: dict[Any, Any], path: Path) -> dict[Any, Any]:
    for key in path:
        content = content[key]
    return content


def _tensors(values: dict[Any, Any]) -> dict[str, Tensor]:
    """The named tensors of a mapping; `dict.items`, since a file may give an object an attribute `items` of its own."""
    found = {name: value for name, value in dict.items(values) if isinstance(name, str) and isinstance(value, Tensor | Array)}
    return {name: value.tensor() if isinstance(value, Array) else value for name, value in found.items()}
