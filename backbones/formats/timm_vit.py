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


def recognise(raw: RawCheckpoint) -> bool:
    """The names of timm."""
    return shapes.is_timm_vit(raw.state)


def convert(raw: RawCheckpoint) -> Converted:
    """Leave out the head; bring the two spellings of LayerScale together; DeiT's distillation token is a register."""
    translated = translate(raw.path, raw.state, RULES, HEADS)
    _refuse_perception_encoder(raw, translated)
    gate_first(translated, r"(blocks\.\d+\.mlp\.fc1)_g\.(weight|bias)", r"\1_x.\2", r"\1.\2")
    notes = [MEAN_ASSUMED]
    if "norm_pre.weight" in translated.state:
        notes.append(GELU_ASSUMED)
    method = "deit" if "dist_token" in raw.state else "unknown"
    return as_vit(raw, translated, method=method, notes=notes)


def _refuse_perception_encoder(raw: RawCheckpoint, translated: Translated) -> None:
    """Its rotary positions leave no tensor, but no CLIP has both a norm before the blocks and LayerScale or pooling."""
    marks = ("blocks.0.ls1.gamma" in translated.state) or any(name.startswith("attn_pool.") for name in raw.state)
    if "norm_pre.weight" in translated.state and marks:
        raise InputError(f"{raw.path}: looks like a Perception Encoder, whose rotary positions are not supported")
