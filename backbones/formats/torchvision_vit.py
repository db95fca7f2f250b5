"""Files of torchvision's VisionTransformer."""

from backbones import naming
from backbones.families import Converted, Evidence
from backbones.formats._common import MEAN_ASSUMED, as_vit, published_heads
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

NAME = "torchvision's VisionTransformer"
EVIDENCE = Evidence.MARK

BLOCK = r"encoder\.layers\.encoder_layer_(\d+)\."
RULES = {
    r"class_token": "cls_token",
    r"encoder\.pos_embedding": "pos_embed",
    r"conv_proj\.(weight|bias)": r"patch_embed.proj.\1",
    r"encoder\.ln\.(.+)": r"norm.\1",
    rf"{BLOCK}ln_([12])\.(.+)": r"blocks.\1.norm\2.\3",
    rf"{BLOCK}self_attention\.in_proj_(weight|bias)": r"blocks.\1.attn.qkv.\2",
    rf"{BLOCK}self_attention\.out_proj\.(.+)": r"blocks.\1.attn.proj.\2",
    # `linear_1` and `linear_2` before torchvision 0.13.
    rf"{BLOCK}mlp\.(?:0|linear_1)\.(.+)": r"blocks.\1.mlp.fc1.\2",
    rf"{BLOCK}mlp\.(?:3|linear_2)\.(.+)": r"blocks.\1.mlp.fc2.\2",
}
# Heads of ViT-B, ViT-L and ViT-H by width (torchvision/models/vision_transformer.py).
HEADS = {768: 12, 1024: 16, 1280: 16}
# torchvision/models/vision_transformer.py: IMAGENET1K_V1 is bilinear, the others bicubic.
BILINEAR_ASSUMED = "bilinear resizing is assumed, as torchvision's own weights take; its SWAG weights take interpolation=bicubic"
DROPPED = {r"heads?\.": "classification head"}


def recognise(raw: RawCheckpoint) -> bool:
    """The names of its encoder."""
    return any(name.startswith("encoder.layers.encoder_layer_0.") for name in raw.state)


def convert(raw: RawCheckpoint) -> Converted:
    """Bring the names to timm's."""
    if any(name.startswith("conv_proj.conv_bn_relu_0.") for name in raw.state):
        raise InputError(f"{raw.path}: torchvision's network with a convolutional stem, which is not supported")
    translated = naming.translate(raw.path, raw.state, RULES, DROPPED)
    notes = (MEAN_ASSUMED, BILINEAR_ASSUMED)
    return as_vit(raw, translated, interpolation="bilinear", notes=notes, **published_heads(translated, HEADS))
