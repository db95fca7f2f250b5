"""Whole segmentors of mmsegmentation's own: UPerNet on its MAE or BEiT backbone, as its trainings save them."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from backbones import reading
from backbones.exports.mmseg import renamed
from backbones.ledger import first
from mae_bench.core.errors import InputError
from tasks.edges.segmentation_model import Segmenter

INSIDE = "backbone.backbone.net."
"""What names of the backbone begin with in a segmentor of the suite's."""
LEFT_OUT = r"(^|\.)relative_position_index$|^backbone\.(mask_token|fc_norm\.|ln1\.|norm\.|ln2\.)|^data_preprocessor\."
"""Tensors that mean nothing here: indices that follow from the size, a final norm that is not applied."""


def load_weights(model: Segmenter, path: Path) -> str:
    """Give a network the weights of a file, every one of them.

    Args:
        model: a segmentor as the recipe builds it.
        path: a file of mmseg's names (`backbone.layers.*`, `neck.*`, `decode_head.*`, `auxiliary_head.*`), or of a training of
            mmengine's with the suite's backbone in it.

    Returns:
        The file's SHA-256.

    Raises:
        InputError: it cannot be read, or names or shapes differ from what the backbone and the settings make.
    """
    raw = reading.read_whole(path)
    wanted = model.segmentor.state_dict()
    # A final norm that is not applied is in no file of mmseg's, and means nothing.
    spare = set() if model.segmentor.backbone.final_norm else {name for name in wanted if name.startswith(f"{INSIDE}norm.")}
    state, missing, used = {}, [], set()
    for name in wanted:
        taken, tensor = _find(raw.state, name)
        used |= taken
        if tensor is not None:
            state[name] = tensor
        elif name not in spare:
            missing.append(name)
    unexpected = [name for name in raw.state if name not in used and not re.search(LEFT_OUT, name)]
    for what, names in (("lacks", missing), ("has besides", unexpected)):
        if names:
            raise InputError(
                f"{path} {what} {len(names)} tensors ({first(names)}); give the backbone and settings it was made with"
            )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)} in place of {tuple(wanted[name].shape)}"
            raise InputError(f"{path}: {name} is {shapes}; give the backbone, image size and classes it was made with")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"{path}: {name} has values that are NaN or infinite; take an earlier checkpoint")
    model.segmentor.load_state_dict(state, strict=False)
    raw.verify()
    return raw.sha256


def _find(state: Mapping[str, Tensor], name: str) -> tuple[set[str], Tensor | None]:
    """The tensor for a parameter of the suite's segmentor, and the names it came from."""
    if name in state:
        return {name}, state[name]
    if not name.startswith(INSIDE):
        return set(), None
    theirs = f"backbone.{renamed(name.removeprefix(INSIDE))}"
    if theirs in state:
        return {theirs}, state[theirs]
    stem = theirs.removesuffix("qkv.bias")
    parts = (f"{stem}q_bias", f"{stem}v_bias")
    if stem != theirs and all(part in state for part in parts):
        q, v = (state[part] for part in parts)
        return set(parts), torch.cat([q, torch.zeros_like(q), v])  # BEiT's keys have no bias
    return set(), None
