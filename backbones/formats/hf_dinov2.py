"""transformers' Dinov2Model and Dinov2WithRegistersModel, bare or inside their heads (DINOv2, arXiv 2304.07193)."""

import torch

from backbones import hf, hf_config, naming
from backbones.families import Converted, Evidence
from backbones.hf_config import Silent
from backbones.naming import Translated
from backbones.reading import RawCheckpoint

NAME = "transformers' Dinov2, with or without registers"
EVIDENCE = Evidence.NAMES

MODELS = ("dinov2", "dinov2_with_registers")
# transformers' Dinov2Config.
SILENT = Silent(norm_eps=1e-6, hidden_act="gelu")


def recognise(raw: RawCheckpoint) -> bool:
    """The names of transformers' ViT with `layer_scale1.lambda1`."""
    return hf.kind_of(raw.state) == "dinov2"


def convert(raw: RawCheckpoint) -> Converted:
    """Put q, k and v together, and gate and value of the gated MLP; registers have no positions."""
    config = hf_config.settings(raw, MODELS)
    hf.refuse_foreign(raw)
    translated = naming.translate(raw.path, raw.state, hf.RULES, hf.DROPPED)
    naming.fuse(translated)
    naming.gate_first(translated, r"(blocks\.\d+\.mlp\.)gate\.(weight|bias)", r"\1up.\2", r"\1fc1.\2")
    registers = "reg_token" in translated.state
    if registers:
        fold_class_position(translated)
    return hf.converted(raw, translated, config, SILENT, method="dinov2", prefix_positions=not registers)


def fold_class_position(translated: Translated) -> None:
    """Add the class token's position to the class token: with registers, the network has positions for patches alone."""
    token, positions = translated.state.get("cls_token"), translated.state.get("pos_embed")
    if token is None or positions is None or positions.ndim != 3 or token.shape != positions[:, :1].shape:
        return
    translated.replace("cls_token", token.to(torch.float32) + positions[:, :1].to(torch.float32))
    translated.replace("pos_embed", positions[:, 1:])
