"""The visual tower of OpenAI's CLIP (arXiv 2103.00020) and open_clip, alone or in a file with the text tower."""

from typing import Any

from backbones import naming, shapes
from backbones.families import Converted, Evidence
from backbones.formats._common import SCALES, as_vit, is_around
from backbones.naming import Translated
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

NAME = "the visual tower of OpenAI's CLIP or open_clip"
EVIDENCE = Evidence.MARK

BLOCK = r"transformer\.resblocks\.(\d+)\."
RULES = {
    r"class_embedding": "cls_token",
    r"positional_embedding": "pos_embed",
    r"conv1\.(weight|bias)": r"patch_embed.proj.\1",
    r"ln_pre\.(.+)": r"norm_pre.\1",
    r"ln_post\.(.+)": r"norm.\1",
    rf"{BLOCK}ln_([12])\.(.+)": r"blocks.\1.norm\2.\3",
    rf"{BLOCK}attn\.in_proj_(weight|bias)": r"blocks.\1.attn.qkv.\2",
    rf"{BLOCK}attn\.out_proj\.(.+)": r"blocks.\1.attn.proj.\2",
    rf"{BLOCK}mlp\.c_fc\.(.+)": r"blocks.\1.mlp.fc1.\2",
    rf"{BLOCK}mlp\.c_proj\.(.+)": r"blocks.\1.mlp.fc2.\2",
    rf"{BLOCK}ls_([12])\.gamma": r"blocks.\1.ls\2.gamma",
    **SCALES,
}
DROPPED = {r"proj$": "projection to the text tower's space"}
POOLED = {r"attn_pool\.": "attention pooling, part of the head", r"ln_post\.": "norm after attention pooling, part of the head"}

# torch's LayerNorm, which CLIP's is.
EPS = 1e-5
# OpenAI's preprocessing (clip.py of openai/CLIP), which open_clip has as its default.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# OpenAI's heads are 64 wide, whatever the width (clip/model.py of openai/CLIP).
OPENAI_HEAD_DIM = 64
# Numbers that only OpenAI's own files have.
OPENAI = r"^(.*\.)?(input_resolution|context_length|vocab_size)$"
GELU_ASSUMED = "GELU is assumed, as in open_clip; weights of OpenAI's in its layout need quick GELU"


def recognise(raw: RawCheckpoint) -> bool:
    """CLIP's own names."""
    return "class_embedding" in raw.state and "conv1.weight" in raw.state


def convert(raw: RawCheckpoint) -> Converted:
    """Bring the names to timm's; the projection to the text tower's space is left out."""
    pooled = any(name.startswith("attn_pool.") for name in raw.state)
    translated = naming.translate(raw.path, raw.state, RULES, {**DROPPED, **(POOLED if pooled else {})})
    if "norm_pre.weight" not in translated.state:
        raise InputError(f"{raw.path}: a CLIP without a norm before its blocks (ln_pre), which is not supported")
    _reshape(raw, translated, "cls_token", 1)
    _reshape(raw, translated, "pos_embed", 2)
    # OpenAI's tensors are named `visual.` in a file that has its numbers too.
    openai = is_around(raw, OPENAI)
    known: dict[str, Any] = {"mlp": "quick_gelu" if openai else "gelu", "norm_eps": EPS}
    if openai:
        known["num_heads"] = max(translated.state["cls_token"].shape[-1] // OPENAI_HEAD_DIM, 1)
    notes = () if openai or "mlp" in raw.facts else (GELU_ASSUMED,)
    return as_vit(raw, translated, method="clip", mean=MEAN, std=STD, notes=notes, **known)


def _reshape(raw: RawCheckpoint, translated: Translated, name: str, ndim: int) -> None:
    """Give a tensor of CLIP's the three dimensions of timm's."""
    tensor = shapes.tensor(raw.path, translated.state, name, ndim)
    translated.replace(name, tensor.reshape((1,) * (3 - ndim) + tensor.shape))
