"""Files of EVA and EVA-02 (arXiv 2303.11331), and of timm's Eva, which has DINOv3 too."""

from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from backbones import eva_shapes
from backbones.families import Converted, Evidence
from backbones.formats._common import HEADS, MEAN_ASSUMED, as_eva
from backbones.naming import gate_first, translate
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

NAME = "timm's Eva (EVA-02, DINOv3), or EVA's own file"
EVIDENCE = Evidence.MARK

RULES = {
    r"(blocks\.\d+\.mlp\.)w12\.(.+)": r"\1fc1.\2",
    # EVA's own names; with a norm in the MLP, gate and value stay apart.
    r"(blocks\.\d+\.mlp\.)w1\.(.+)": r"\1fc1_g.\2",
    r"(blocks\.\d+\.mlp\.)w2\.(.+)": r"\1fc1_x.\2",
    r"(blocks\.\d+\.mlp\.)w3\.(.+)": r"\1fc2.\2",
    r"(blocks\.\d+\.mlp\.)ffn_ln\.(.+)": r"\1norm.\2",
    r"(blocks\.\d+\.attn\.)inner_attn_ln\.(.+)": r"\1norm.\2",
}
BIASES = {r"(blocks\.\d+\.attn\.)([qv])_bias": r"\1\2_proj.bias"}
DROPPED = {
    **HEADS,
    r"mask_token$": "token of masked patches, part of the pretraining",
    r"(blocks\.\d+\.attn\.)?rope\.(freqs_(cos|sin)|bands|periods|pos_embed)$": "a table of rotary positions, which is made anew",
    r"blocks\.\d+\.attn\.k_bias$": "the bias that keys do not have, zeros",
}
# timm, models/eva.py: all of EVA and EVA-02 take CLIP's, DINOv3 takes ImageNet's.
MEAN_OF_EVA = "CLIP's mean and std are assumed, as EVA's and EVA-02's published weights take: the file does not say"
# EVA-02's largest CLIP (width 1792) has its norms behind the layers, under the same names (timm, models/eva.py).
POST_NORM_WIDTH = 1792


def recognise(raw: RawCheckpoint) -> bool:
    """Queries, keys and values with weights of their own, or biases that BEiT has too, but no tables."""
    state = raw.state
    if "storage_tokens" in state or "rope_embed.periods" in state:
        return False
    # BEiT's pretraining files without tables have a plain MLP.
    beit = "lm_head.weight" in state and "blocks.0.mlp.fc1.weight" in state and "blocks.0.attn.qkv.weight" in state
    return eva_shapes.is_timm_eva(state) and not beit


def convert(raw: RawCheckpoint) -> Converted:
    """Bring EVA's own names to timm's."""
    split = "blocks.0.attn.q_proj.weight" in raw.state
    keys = [name for name in raw.state if name.endswith(".k_bias") and raw.state[name].any()]
    if keys:
        raise InputError(f"{raw.path}: {keys[0]} is not zero, and keys have no bias in this architecture")
    translated = translate(raw.path, raw.state, {**RULES, **(BIASES if split else {})}, DROPPED)
    if raw.state["patch_embed.proj.weight"].shape[0] == POST_NORM_WIDTH:
        raise InputError(f"{raw.path}: EVA-02 enormous has its norms behind attention and MLP, which is not supported")
    if "blocks.0.mlp.norm.weight" not in translated.state:
        gate_first(translated, r"(blocks\.\d+\.mlp\.fc1)_g\.(weight|bias)", r"\1_x.\2", r"\1.\2")
    if "pos_embed" not in translated.state:
        return as_eva(raw, translated, notes=(MEAN_ASSUMED,))
    return as_eva(raw, translated, mean=OPENAI_CLIP_MEAN, std=OPENAI_CLIP_STD, notes=(MEAN_OF_EVA,))
