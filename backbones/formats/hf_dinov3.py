"""transformers' DINOv3ViTModel (DINOv3, arXiv 2508.10104), bare or inside another model."""

import re

from backbones import naming
from backbones.eva import TEMPERATURE
from backbones.families import Converted, Evidence
from backbones.formats import _hf, _hf_config
from backbones.formats._common import as_eva
from backbones.formats._hf import BLOCK, LAST
from backbones.formats._hf_config import Settings, Silent
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

NAME = "transformers' DINOv3ViT"
EVIDENCE = Evidence.NAMES

MODELS = ("dinov3_vit",)
# transformers' DINOv3ViTConfig.
SILENT = Silent(norm_eps=1e-5, hidden_act="gelu", num_heads=6)
ROPE_THETA = TEMPERATURE["dinov3"]

# timm's Eva names LayerScale unlike its ViT, and has biases of queries and values as parameters of their own.
RULES = {
    rf"{BLOCK}layer_scale([12])\.lambda1": r"blocks.\1.gamma_\2",
    rf"{BLOCK}attention\.([qv])_proj\.bias": r"blocks.\1.attn.\2_bias",
    **_hf.RULES,
}
PLAIN = {rf"{BLOCK}mlp\.up_proj{LAST}": r"blocks.\1.mlp.fc1.\2"}


def recognise(raw: RawCheckpoint) -> bool:
    """The names of transformers' DINOv3, whose patch projection is called unlike the others'."""
    return _hf.kind_of(raw.state) == "dinov3"


def convert(raw: RawCheckpoint) -> Converted:
    """Put q, k and v together, and gate and value where the MLP is gated."""
    config = _hf_config.settings(raw, MODELS)
    _refuse_key_bias(raw)
    gated = any(".mlp.gate_proj." in name for name in raw.state)
    translated = naming.translate(raw.path, raw.state, RULES if gated else {**PLAIN, **RULES}, _hf.DROPPED)
    naming.fuse(translated)
    naming.gate_first(translated, r"(blocks\.\d+\.mlp\.)gate\.(weight|bias)", r"\1up.\2", r"\1fc1.\2")
    mean, std, notes = _hf_config.statistics(raw, SILENT)
    if config:
        _refuse_other_parts(raw, config, gated=gated)
    fixed = {"class_token": True, "final_norm": True, "layer_scale": True, **_hf_config.known(raw, config, SILENT)}
    if config:
        fixed["num_registers"] = config.get("num_register_tokens", 0)
    resizing = _hf_config.interpolation(raw)
    result = as_eva(raw, translated, method="dinov3", mean=mean, std=std, interpolation=resizing, notes=notes, **fixed)
    _hf_config.check(raw, config, result)
    return result


def _refuse_key_bias(raw: RawCheckpoint) -> None:
    found = [name for name in raw.state if re.search(r"\.k_proj\.bias$", name)]
    if found:
        raise InputError(f"{raw.path}: has a bias of the keys ({found[0]}); networks of the DINOv3 kind have none here")


def _refuse_other_parts(raw: RawCheckpoint, config: Settings, *, gated: bool) -> None:
    """Settings that no tensor shows and that the network has one value of."""
    fixed = {"rope_theta": ROPE_THETA, "hidden_act": "silu" if gated else "gelu"}
    defaults = {"rope_theta": 100.0, "hidden_act": SILENT.hidden_act}
    for key, wanted in fixed.items():
        told = config.get(key, defaults[key])
        if told != wanted:
            raise InputError(f"{raw.path}: its config.json says {key} {told!r}; networks of the DINOv3 kind have {wanted!r} here")
