"""What all folders for transformers have: their files, and how images become pixels."""

from typing import Any

from torch import Tensor

from backbones.arch import Arch
from backbones.contract import BackboneSpec
from backbones.formats import _hf_config

CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
RESAMPLE = {name: number for number, name in _hf_config.RESAMPLE.items()}
"""PIL's numbers of the resampling."""


def thirds(tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries', keys' and values' parts of a fused weight (3*C, C) or bias (3*C,)."""
    q, k, v = tensor.chunk(3)
    return q, k, v


def sizes(arch: Arch, model: str, kind: str) -> dict[str, Any]:
    """What `config.json` says of every model.

    Args:
        arch: the network.
        model: transformers' class.
        kind: its `model_type`.
    """
    height, width = arch.image_size
    return {
        "architectures": [model],
        "model_type": kind,
        "hidden_size": arch.embed_dim,
        "num_hidden_layers": arch.depth,
        "num_attention_heads": arch.num_heads,
        "layer_norm_eps": arch.norm_eps,
        "image_size": height if height == width else [height, width],
        "patch_size": arch.patch_size,
        "num_channels": 3,
        "dtype": "float32",
    }


def processor(spec: BackboneSpec, *, crops: bool) -> dict[str, Any]:
    """How images become pixels: what AutoImageProcessor makes of an image is as large as the network was made for.

    Args:
        spec: mean, std, size and interpolation.
        crops: whether the middle of the image is taken (CLIP) or all of it, squeezed.
    """
    height, width = spec.image_size
    whole = {"height": height, "width": width}
    return {
        "image_processor_type": "CLIPImageProcessor" if crops else "ViTImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": height} if crops else whole,
        "resample": RESAMPLE[spec.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    } | ({"do_center_crop": True, "crop_size": whole} if crops else {})
