"""What files of Hugging Face's transformers share: the names of their tensors, and how these become a network.

transformers 4 and 5 name the same tensors differently, in files and in memory; all their spellings are read.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor

from backbones.families import Converted
from backbones.formats import _hf_config
from backbones.formats._common import as_vit
from backbones.formats._hf_config import Settings, Silent
from backbones.naming import Translated
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

Kind = Literal["", "vit", "dinov2", "beit", "clip", "dinov3"]

BLOCK = r"(?:model\.)?(?:encoder\.)?layers?\.(\d+)\."
LAST = r"\.(weight|bias)"

RULES = {
    r"embeddings\.cls_token": r"cls_token",
    r"embeddings\.(?:distillation_token|register_tokens)": r"reg_token",
    r"embeddings\.position_embeddings": r"pos_embed",
    rf"embeddings\.patch_embeddings(?:\.projection)?{LAST}": r"patch_embed.proj.\1",
    rf"{BLOCK}attention\.(?:attention\.)?([qkv])(?:_proj|uery|ey|alue){LAST}": r"blocks.\1.attn.\2.\3",
    rf"{BLOCK}attention\.(?:output\.dense|o_proj){LAST}": r"blocks.\1.attn.proj.\2",
    rf"{BLOCK}(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in){LAST}": r"blocks.\1.mlp.fc1.\2",
    rf"{BLOCK}(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj){LAST}": r"blocks.\1.mlp.fc2.\2",
    rf"{BLOCK}mlp\.(gate|up)_proj{LAST}": r"blocks.\1.mlp.\2.\3",
    rf"{BLOCK}(?:layernorm_before|norm1){LAST}": r"blocks.\1.norm1.\2",
    rf"{BLOCK}(?:layernorm_after|norm2){LAST}": r"blocks.\1.norm2.\2",
    rf"{BLOCK}(?:layer_scale([12])\.lambda1|lambda_([12]))": r"blocks.\1.ls\2\3.gamma",
    rf"{BLOCK}(?:attention\.attention\.)?relative_position_bias\.(relative_position_bias_table)": r"blocks.\1.attn.\2",
    r"(?:encoder\.relative_position_bias|shared_position_bias)\.(relative_position_bias_table)": r"rel_pos_bias.\1",
    rf"(?:layernorm|norm){LAST}": r"norm.\1",
}
"""Names of ViT, DeiT, ViTMAE, DINOv2, BEiT and DINOv3 -> timm's; see `naming.translate`."""

DROPPED = {
    r"pooler\.layernorm\.": "norm after pooling, part of the classification head",
    r"pooler\.": "pooler, a layer for transformers' own heads",
    r"embeddings\.mask_token$": "part of the pretraining",
    r".*relative_position_index$": "a table of numbers that is made anew",
    r"embeddings\.position_ids$": "a table of numbers that is made anew",
}
"""Reasons to leave tensors out, by pattern of the beginning of the name."""

# Parts of transformers' other models, for files without a config.json.
FOREIGN = {
    r"detection_tokens|mid_position_embeddings": "detection tokens (YOLOS)",
    r"text_embeddings": "text embeddings (ViLT)",
    r"\.blocks\.\d+\.|\.downsample\.": "stages of blocks (Swin)",
    r"backbone\.bit\.|patch_embeddings\.backbone": "a convolutional stem (ViT hybrid)",
    r"self_attn\.qkv\.": "fused q, k and v (BLIP)",
}


def kind_of(state: Mapping[str, Tensor]) -> Kind:
    """Which of transformers' vision models tensors are of, from their names; empty for none."""
    if "embeddings.patch_embedding.weight" in state:
        return "clip"
    if "embeddings.patch_embeddings.weight" in state:
        return "dinov3"
    if "embeddings.patch_embeddings.projection.weight" not in state:
        return ""
    if _any(r"\.layer_scale[12]\.lambda1$", state):
        return "dinov2"
    if _any(r"\.lambda_[12]$|relative_position_bias", state) or (
        _any(r"\.query\.bias$|\.q_proj\.bias$", state) and not _any(r"\.key\.bias$|\.k_proj\.bias$", state)
    ):
        return "beit"
    return "vit"


def refuse_foreign(raw: RawCheckpoint) -> None:
    """Stop at parts of transformers' other models.

    Raises:
        InputError: names the part and a tensor of it.
    """
    for name in raw.state:
        for pattern, what in FOREIGN.items():
            if re.search(pattern, name):
                raise InputError(f"{raw.path}: has {what}: {name}; this architecture is not supported")


def plain(
    raw: RawCheckpoint, translated: Translated, config: Settings, silent: Silent, *, method: str, **fixed: Any
) -> Converted:
    """The plain Vision Transformer that translated tensors are of.

    Args:
        raw: the file.
        translated: its tensors by timm's names.
        config: what `_hf_config.settings` gives.
        silent: what holds where `config` says nothing.
        method: how the network was pretrained.
        fixed: fields of `VitArch` that all networks of the family have, so that a tensor the file lacks is noticed.

    Raises:
        InputError: shapes that fit no network, or not the one `config.json` describes.
    """
    known = {**fixed, **_hf_config.known(raw, config, silent)}
    if not _is_gated(translated.state):
        known["mlp"] = _hf_config.activation(raw, config, silent)
    mean, std, notes = _hf_config.statistics(raw, silent)
    if not config:
        notes.append(f"LayerNorm epsilon {silent.norm_eps:g} and {silent.hidden_act} are assumed: {_hf_config.BARE}")
    resizing = _hf_config.interpolation(raw)
    result = as_vit(raw, translated, method=method, mean=mean, std=std, interpolation=resizing, notes=notes, **known)
    _hf_config.check(raw, config, result)
    return result


def _is_gated(state: Mapping[str, Tensor]) -> bool:
    """Whether the first layer of the MLP gives twice what the second takes."""
    first, second = state.get("blocks.0.mlp.fc1.weight"), state.get("blocks.0.mlp.fc2.weight")
    return first is not None and second is not None and first.ndim == second.ndim == 2 and first.shape[0] == 2 * second.shape[1]


def _any(pattern: str, names: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for name in names)
