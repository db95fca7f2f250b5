"""What `config.json` and `preprocessor_config.json` of Hugging Face's transformers say about a vision model."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from backbones.contract import Interpolation
from backbones.families import Converted
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

Rgb = tuple[float, float, float]
Size = tuple[int, int]
Settings = dict[str, Any]

BARE = "there is no config.json beside the file"

HALF: tuple[Rgb, Rgb] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET: tuple[Rgb, Rgb] = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
CLIP: tuple[Rgb, Rgb] = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)

# transformers' names of activations, in the words of `VitArch.mlp`.
ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "quick_gelu": "quick_gelu"}

# PIL's numbers, as `resample` has them.
RESAMPLE: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# Image processors of transformers that are bilinear where their settings say nothing; those of the other families are bicubic.
BILINEAR = ("ViTImageProcessor", "ViTFeatureExtractor", "DINOv3ViTImageProcessor")

# Why the better known of transformers' other vision models are refused.
OTHERS = {
    "swin": "its windows shift and its grid shrinks",
    "swinv2": "its windows shift and its grid shrinks",
    "vilt": "it reads text with the image",
    "yolos": "it has detection tokens, and positions in every block",
    "videomae": "it takes videos",
    "vivit": "it takes videos",
    "timesformer": "it takes videos",
    "siglip2": "it takes images cut into patches beforehand (files of a fixed image size say 'siglip')",
    "siglip2_vision_model": "it takes images cut into patches beforehand (files of a fixed image size say 'siglip_vision_model')",
    "pixtral": "it takes images cut into patches beforehand",
    "dpt": "it is a network for depth around a ViT",
    "depth_anything": "it is a network for depth around a DINOv2",
    "blip_vision_model": "it is not among the families with a test of equality",
}


@dataclass(frozen=True)
class Silent:
    """What transformers takes where `config.json` says nothing: the defaults of a model's own config class."""

    norm_eps: float
    hidden_act: str
    statistics: tuple[Rgb, Rgb] = IMAGENET
    """Mean and std of its published checkpoints, where there is no `preprocessor_config.json`."""
    num_heads: int = 12


def settings(raw: RawCheckpoint, known: Collection[str]) -> Settings:
    """The part of `config.json` that is about the vision model; empty for a bare file.

    Args:
        raw: the file.
        known: values of `model_type` that its family has.

    Raises:
        InputError: `config.json` is of another model.
    """
    config = raw.config
    if not config:
        return {}
    model = config.get("model_type")
    if model not in known:
        reason = OTHERS.get(str(model), "no family with tensors like these")
        raise InputError(f"{raw.path}: its config.json says model_type {model!r}, which cannot be carried: {reason}")
    inner = config.get("vision_config")
    return {**inner, "model_type": model} if isinstance(inner, dict) else config


def activation(raw: RawCheckpoint, config: Settings, silent: Silent) -> str:
    """What `VitArch.mlp` is for a plain MLP.

    Raises:
        InputError: an activation that the network does not have.
    """
    name = config.get("hidden_act", silent.hidden_act)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise InputError(f"{raw.path}: config.json asks for hidden_act {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def known(raw: RawCheckpoint, config: Settings, silent: Silent) -> dict[str, Any]:
    """Fields of an architecture that `config.json` says and no tensor shows."""
    found = {"norm_eps": config.get("layer_norm_eps", silent.norm_eps)}
    if config:
        found["num_heads"] = config.get("num_attention_heads", silent.num_heads)
    size = _image_size(raw, config)
    return {**found, "image_size": size} if size else found


def check(raw: RawCheckpoint, config: Settings, converted: Converted) -> None:
    """See that the sizes in `config.json` are those of the tensors.

    Raises:
        InputError: one is not.
    """
    spec = converted.spec
    shown = {"hidden_size": spec.embed_dim, "num_hidden_layers": spec.depth, "patch_size": spec.patch_size}
    for key, size in shown.items():
        told = config.get(key, size)
        if told != size and told != [size, size]:
            raise InputError(
                f"{raw.path}: its config.json says {key} {told!r}, and its tensors {size}; they belong to two models"
            )


def _image_size(raw: RawCheckpoint, config: Settings) -> Size | None:
    """Height and width in pixels of the patches of the stored positions; None where `config.json` does not say."""
    told, patch = config.get("image_size"), config.get("patch_size", 1)
    if told is None:
        return None
    sides, patch = (told if isinstance(told, list) else [told, told]), (patch if type(patch) is int and patch > 0 else 1)
    if len(sides) != 2 or not all(type(side) is int and side >= patch for side in sides):
        raise InputError(f"{raw.path}: config.json says image_size {told!r}; one or two numbers of pixels are needed")
    # transformers' patch projection leaves out pixels that fill no patch (SigLIP has 384 in patches of 14).
    return sides[0] // patch * patch, sides[1] // patch * patch


def statistics(raw: RawCheckpoint, silent: Silent) -> tuple[Rgb, Rgb, list[str]]:
    """Mean and std for pixels in 0..1, and notes where they are assumed.

    Raises:
        InputError: a `preprocessor_config.json` whose numbers cannot be used.
    """
    told = raw.preprocessor
    if "image_mean" not in told and told.get("do_normalize", True):
        mean, std = silent.statistics
        words = " and ".join("/".join(f"{value:g}" for value in values) for values in (mean, std))
        return mean, std, [f"mean and std are assumed, {words}: there is no preprocessor_config.json that says them"]
    normalised = told.get("do_normalize", True)
    mean, std = (told["image_mean"], told.get("image_std")) if normalised else ([0.0] * 3, [1.0] * 3)
    factor = _factor(raw)
    return _rgb(raw, "image_mean", mean, factor), _rgb(raw, "image_std", std, factor), []


def interpolation(raw: RawCheckpoint) -> Interpolation:
    """How images are resized to the input.

    Raises:
        InputError: a way that is not known.
    """
    told = raw.preprocessor
    number = told.get("resample")
    if number is None:
        kind = str(told.get("image_processor_type", told.get("feature_extractor_type", "")))
        return "bilinear" if kind.startswith(BILINEAR) else "bicubic"
    if type(number) is not int or number not in RESAMPLE:
        raise InputError(f"{raw.path}: its preprocessor_config.json says resample {number!r}; known: {RESAMPLE}")
    return RESAMPLE[number]


def _factor(raw: RawCheckpoint) -> float:
    """What pixels in 0..1 are multiplied by before the mean is taken off: transformers starts from pixels in 0..255."""
    if not raw.preprocessor.get("do_rescale", True):
        return 255.0
    told = raw.preprocessor.get("rescale_factor", 1 / 255)
    if type(told) not in (int, float) or not 0 < told < math.inf:
        raise InputError(f"{raw.path}: its preprocessor_config.json says rescale_factor {told!r}; a number above 0 is needed")
    return 1.0 if math.isclose(255 * told, 1.0) else 255 * told


def _rgb(raw: RawCheckpoint, key: str, values: Any, factor: float) -> Rgb:
    good = isinstance(values, list) and len(values) == 3 and all(type(value) in (int, float) for value in values)
    if not good or not all(math.isfinite(value) for value in values) or (key == "image_std" and min(values) <= 0):
        raise InputError(f"{raw.path}: its preprocessor_config.json says {key} {values!r}; three numbers are needed")
    red, green, blue = (value / factor for value in values)
    return red, green, blue
