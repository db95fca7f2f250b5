"""transformers' Dinov2Model and Dinov2WithRegistersModel, bare or inside their heads (DINOv2, arXiv 2304.07193)."""

from typing import Any

import torch

from backbones import naming
from backbones.families import Converted, Evidence
from backbones.formats import _hf, _hf_config
from backbones.formats._hf_config import Silent
from backbones.naming import Translated
from backbones.reading import RawCheckpoint

NAME = "transformers' Dinov2, with or without registers"
EVIDENCE = Evidence.NAMES

REGISTERS = "dinov2_with_registers"
MODELS = ("dinov2", REGISTERS)
# transformers' Dinov2Config and Dinov2WithRegistersConfig.
SILENT = Silent(norm_eps=1e-6, hidden_act="gelu")
NUM_REGISTERS = 4


def recognise(raw: RawCheckpoint) -> bool:
    """The names of transformers' ViT with `layer_scale1.lambda1`."""
    return _hf.kind_of(raw.state) == "dinov2"


def convert(raw: RawCheckpoint) -> Converted:
    """Put q, k and v together, and gate and value of the gated MLP; registers have no positions."""
    config = _hf_config.settings(raw, MODELS)
    _hf.refuse_foreign(raw)
    translated = naming.translate(raw.path, raw.state, _hf.RULES, _hf.DROPPED)
    naming.fuse(translated)
    naming.gate_first(translated, r"(blocks\.\d+\.mlp\.)gate\.(weight|bias)", r"\1up.\2", r"\1fc1.\2")
    if "reg_token" in translated.state:
        fold_class_position(translated)
    fixed: dict[str, Any] = {"patch_bias": True, "final_norm": True, "layer_scale": True}
    if config.get("model_type") == REGISTERS:
        fixed["num_registers"] = config.get("num_register_tokens", NUM_REGISTERS)
    return _hf.plain(raw, translated, config, SILENT, method="dinov2", **fixed)


def fold_class_position(translated: Translated) -> None:
    """Add the class token's position to the class token: with registers, the network has positions for patches alone."""
    token, positions = translated.state.get("cls_token"), translated.state.get("pos_embed")
    if token is None or positions is None or positions.ndim != 3 or token.shape != positions[:, :1].shape:
        return
    # Whole numbers are left for the loader to refuse.
    if not (token.is_floating_point() and positions.is_floating_point()):
        return
    translated.replace("cls_token", token.to(torch.float32) + positions[:, :1].to(torch.float32))
    translated.replace("pos_embed", positions[:, 1:])
