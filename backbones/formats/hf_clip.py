"""The vision towers of transformers' CLIP and SigLIP (arXiv 2103.00020, 2303.15343), bare or inside the whole model."""

from backbones import naming
from backbones.families import Converted, Evidence
from backbones.formats import _hf, _hf_config
from backbones.formats._hf import BLOCK, LAST
from backbones.formats._hf_config import CLIP, HALF, Silent
from backbones.reading import RawCheckpoint

NAME = "transformers' CLIP and SigLIP vision models"
EVIDENCE = Evidence.NAMES

METHODS = {"clip": "clip", "clip_vision_model": "clip", "siglip": "siglip", "siglip_vision_model": "siglip"}
# transformers' CLIPVisionConfig and SiglipVisionConfig.
CLIP_SILENT = Silent(norm_eps=1e-5, hidden_act="quick_gelu", statistics=CLIP)
SIGLIP_SILENT = Silent(norm_eps=1e-6, hidden_act="gelu_pytorch_tanh", statistics=HALF)

RULES = {
    r"embeddings\.class_embedding": r"cls_token",
    r"embeddings\.position_embedding\.weight": r"pos_embed",
    rf"embeddings\.patch_embedding{LAST}": r"patch_embed.proj.\1",
    rf"pre_layrnorm{LAST}": r"norm_pre.\1",
    rf"post_layernorm{LAST}": r"norm.\1",
    rf"{BLOCK}layer_norm([12]){LAST}": r"blocks.\1.norm\2.\3",
    rf"{BLOCK}self_attn\.([qkv])_proj{LAST}": r"blocks.\1.attn.\2.\3",
    rf"{BLOCK}self_attn\.out_proj{LAST}": r"blocks.\1.attn.proj.\2",
    rf"{BLOCK}mlp\.(fc[12]){LAST}": r"blocks.\1.mlp.\2.\3",
}
DROPPED = {**_hf.DROPPED, r"head\.": "attention pooling, the head of the pretraining"}


def recognise(raw: RawCheckpoint) -> bool:
    """The names of transformers' CLIP vision model."""
    return _hf.kind_of(raw.state) == "clip"


def convert(raw: RawCheckpoint) -> Converted:
    """Put q, k and v together; without a class token the file is SigLIP's."""
    config = _hf_config.settings(raw, METHODS)
    _hf.refuse_foreign(raw)
    translated = naming.translate(raw.path, raw.state, RULES, DROPPED)
    naming.fuse(translated)
    for name in ("cls_token", "pos_embed"):
        tensor = translated.state.get(name)
        if tensor is not None:
            translated.replace(name, tensor.unsqueeze(0) if name == "pos_embed" else tensor.unsqueeze(0).unsqueeze(0))
    silent, method = (CLIP_SILENT, "clip") if "cls_token" in translated.state else (SIGLIP_SILENT, "siglip")
    clip = method == "clip"
    return _hf.plain(raw, translated, config, silent, method=method, pre_norm=clip, patch_bias=not clip, final_norm=True)
