"""A whole detector from a file of Detectron2, such as ViTDet's released ones: backbone, pyramid and heads."""

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from backbones.archives import content_of
from backbones.ledger import first
from backbones.nesting import unnest
from backbones.opened import OpenFile
from mae_bench.core.errors import InputError

if TYPE_CHECKING:
    from tasks.edges.detection_model import Detector

log = logging.getLogger(__name__)

THEIRS = "backbone.net."
"""How names of the network begin in a file of ViTDet."""
LEFT_OUT = r"^pixel_(mean|std)$|\.anchor_generator\.cell_anchors\."
"""Buffers that Detectron2 makes from its settings, in files of older versions."""
POSITIONS = "pos_embed"


def load_detector(model: "Detector", path: str) -> str:
    """Put the weights of a file into a detector that was built from settings; every tensor has to find its place.

    Args:
        model: with the structure of the detector in the file; changed in place.
        path: a `.pkl` of Detectron2's model zoo, or a `.pth` that its trainer leaves.

    Returns:
        SHA-256 of the file.

    Raises:
        InputError: no detector, one of another structure, or numbers that are not finite.
    """
    file = OpenFile(Path(path))
    nested = unnest(path, content_of(file)[0])
    given = {name: tensor for name, tensor in nested.state.items() if not re.search(LEFT_OUT, name)}
    prefix, unused = _network(model)
    found = {(prefix + name.removeprefix(THEIRS) if name.startswith(THEIRS) else name): value for name, value in given.items()}
    wanted = model.state_dict()
    found = {name: _fitted(name, value, wanted.get(name)) for name, value in found.items()}
    _check(path, found, wanted, unused)
    model.load_state_dict({**{name: wanted[name] for name in unused}, **found})
    file.verify()
    log.info("detection: %d tensors of %s", len(found), path)
    return file.sha256


def _network(model: "Detector") -> tuple[str, set[str]]:
    """How names of the backbone's network begin in the model, and those that no map depends on."""
    prefix = next(name for name, _ in model.named_parameters() if name.endswith("patch_embed.proj.weight"))
    prefix = prefix.removesuffix("patch_embed.proj.weight")
    return prefix, {name for name in model.state_dict() if name.startswith(f"{prefix}norm.")}


def _fitted(name: str, value: Tensor, wanted: Tensor | None) -> Tensor:
    """A tensor of the file as the model keeps it."""
    value = value.to(torch.float32) if value.is_floating_point() else value
    if wanted is None or value.shape == wanted.shape:
        return value
    if name.endswith(POSITIONS) and value.ndim == 3 and value.shape[1] == wanted.shape[1] + 1:
        return value[:, 1:]  # Detectron2 keeps the row of the class token and does not use it
    return value


def _check(path: str, found: dict[str, Tensor], wanted: dict[str, Tensor], unused: set[str]) -> None:
    missing = [name for name in wanted if name not in found and name not in unused]
    unexpected = [name for name in found if name not in wanted]
    shapes = [
        f"{name} {tuple(found[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    broken = [name for name, value in found.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("of other shapes", shapes), ("not finite", broken)):
        if names:
            raise InputError(
                f"{path}: {len(names)} tensors {what} ({first(names)}); take the recipe and -m that the detector was trained with"
            )
