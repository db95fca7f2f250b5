"""Files with the names of timm's VisionTransformer: timm's own, DeiT, DINO's backbones, fine-tuned MAE (`fc_norm`)."""

from backbones import shapes
from backbones.families import Converted, Evidence
from backbones.formats._common import HEADS, MEAN_ASSUMED, SCALES, as_vit
from backbones.naming import Translated, gate_first, translate
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

NAME = "a timm VisionTransformer or a file with its names (DeiT, DINO, fine-tuned MAE)"
EVIDENCE = Evidence.NAMES

RULES = {**SCALES, r"dist_token": "reg_token"}
# The activation of CLIP's MLPs leaves no tensor; timm's `quickgelu` models have OpenAI's.
GELU_ASSUMED = "GELU is assumed; a CLIP with OpenAI's activation is given as timm:NAME, or with mlp=quick_gelu"

TANH_ASSUMED = "GELU is assumed; SigLIP's newer models have its tanh form: give mlp=gelu_tanh for those"
NORMS_ASSUMED = "norms before attention and MLP are assumed: timm's vit_*_rpn, which have them after, have the names of this"
NO_ROTATION = "no rotary positions are assumed: RoPE-ViT's files with position embeddings have the names of DeiT III's"


def recognise(raw: RawCheckpoint) -> bool:
    """The names of timm."""
    return shapes.is_timm_vit(raw.state)


def convert(raw: RawCheckpoint) -> Converted:
    """Leave out the head; bring the two spellings of LayerScale together; DeiT's distillation token is a register."""
    translated = translate(raw.path, raw.state, RULES, HEADS)
    _refuse_perception_encoder(raw, translated)
    gate_first(translated, r"(blocks\.\d+\.mlp\.fc1)_g\.(weight|bias)", r"\1_x.\2", r"\1.\2")
    notes = [MEAN_ASSUMED]
    if "mlp" in raw.facts:
        pass
    elif "norm_pre.weight" in translated.state:
        notes.append(GELU_ASSUMED)
    elif "cls_token" not in raw.state or any(name.startswith("attn_pool.") for name in raw.state):
        notes.append(TANH_ASSUMED)
    if "cls_token" not in raw.state and "blocks.0.attn.qkv.bias" not in raw.state:
        notes.append(NORMS_ASSUMED)
    if "blocks.0.gamma_1" in raw.state:
        notes.append(NO_ROTATION)
    method = "deit" if "dist_token" in raw.state else "unknown"
    return as_vit(raw, translated, method=method, notes=notes)


def _refuse_perception_encoder(raw: RawCheckpoint, translated: Translated) -> None:
    """Its rotary positions leave no tensor. CLIP has a norm before the blocks and one after, no LayerScale and no pooling."""
    if "norm_pre.weight" not in translated.state:
        return
    no_norm = "norm.weight" not in translated.state and "fc_norm.weight" not in raw.state
    if no_norm or "blocks.0.ls1.gamma" in translated.state or any(name.startswith("attn_pool.") for name in raw.state):
        raise InputError(f"{raw.path}: looks like a Perception Encoder, whose rotary positions are not supported")
