"""What others than the tensors say of a network: the user after the `#` of SRC, and timm's `config.json` beside the file."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backbones import fragment
from backbones.families import Converted
from backbones.fragment import Fragment
from backbones.reading import RawCheckpoint
from backbones.zoo import Zoo
from mae_bench.core.config import build
from mae_bench.core.errors import InputError

ASSUMED = {
    ("num_heads",): "heads are assumed",
    ("mean", "std"): "mean and std are assumed",
    ("interpolation",): "resizing is assumed",
}
"""Notes that no longer hold when the user says what was assumed."""
USUAL = "bicubic"
"""How images are resized where nothing says otherwise."""


def beside(raw: RawCheckpoint) -> Callable[[Converted], Converted]:
    """What a `config.json` of timm's beside the file says; transformers' is read by its families."""
    from backbones import timm_config

    if not timm_config.is_timms(raw):
        return lambda converted: converted
    return lambda converted: timm_config.with_config(raw, converted)


def apart(raw: RawCheckpoint, converted: Converted, told: Fragment) -> dict[str, Any]:
    """What tells a network from others of the same weights, by the names that stand behind the `#`.

    What the user says, and what JSON files beside the weights say, which are no part of their hash. Resizing that is not
    bicubic counts whoever says it: before it was told, all images were resized so.
    """
    spec = converted.spec
    found: dict[str, Any] = {} if spec.interpolation == USUAL else {"interpolation": spec.interpolation}
    if raw.config or raw.preprocessor:
        found |= {name: getattr(converted.arch, name, None) for name in fragment.ARCH}
        found |= {name: getattr(spec, name) for name in ("mean", "std", "interpolation", "image_size")}
    return {**found, **told.changes()}


def user(converted: Converted, zoo: Zoo, told: Fragment, text: str) -> Converted:
    """Replace what a file leaves to guess by what the user says.

    Args:
        converted: what its family made of the file.
        zoo: what makes the network.
        told: the fragment of SRC.
        text: SRC, for messages.

    Raises:
        ConfigError: facts that no network can have.
        InputError: an image size that the position embeddings are not for.
    """
    facts = told.given(*fragment.ARCH)
    arch = build(type(converted.arch), {**converted.arch.model_dump(), **facts}, where=text)
    spec = zoo.spec_of(
        arch,
        mean=told.mean or converted.spec.mean,
        std=told.std or converted.spec.std,
        method=converted.spec.method,
        pretrain_data=converted.spec.pretrain_data,
        interpolation=told.interpolation or converted.spec.interpolation,
    )
    if told.image_size and told.image_size != spec.image_size:
        height, width = spec.image_size
        raise InputError(f"{text}: the position embeddings of the file are for {height}x{width} pixels; leave image_size out")
    if not told.changes():
        return converted
    known = [pattern for names, pattern in ASSUMED.items() if len(told.given(*names)) == len(names)]
    notes = tuple(note for note in converted.notes if not any(re.search(pattern, note) for pattern in known))
    return replace(converted, arch=arch, spec=spec, notes=notes)
