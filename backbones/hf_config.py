"""What `config.json` and `preprocessor_config.json` of Hugging Face's transformers say about a vision model."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from backbones.reading import RawCheckpoint
from backbones.relative import EXTRA, table_rows
from mae_bench.core.errors import InputError

Rgb = tuple[float, float, float]
Size = tuple[int, int]

HALF: tuple[Rgb, Rgb] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET: tuple[Rgb, Rgb] = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
CLIP: tuple[Rgb, Rgb] = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)

# transformers' names of activations, in the words of `VitArch.mlp`.
ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "quick_gelu": "quick_gelu"}

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


def settings(raw: RawCheckpoint, known: Collection[str]) -> dict[str, Any]:
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
    return inner if isinstance(inner, dict) else config


def activation(raw: RawCheckpoint, config: dict[str, Any], silent: Silent) -> str:
    """What `VitArch.mlp` is for a plain MLP.

    Raises:
        InputError: an activation that the network does not have.
    """
    name = config.get("hidden_act", silent.hidden_act)
    if name not in ACTIVATIONS:
        raise InputError(f"{raw.path}: config.json asks for hidden_act {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def check_sizes(raw: RawCheckpoint, config: dict[str, Any], shown: dict[str, int]) -> None:
    """See that the sizes in `config.json` are those of the tensors.

    Raises:
        InputError: one is not.
    """
    for key, size in shown.items():
        told = config.get(key, size)
        if told != size and told != [size, size]:
            raise InputError(
                f"{raw.path}: its config.json says {key} {told!r}, and its tensors {size}; they belong to two models"
            )


def grid_of(raw: RawCheckpoint, config: dict[str, Any], patch: int, rows: int, counted: str, *, relative: bool = False) -> Size:
    """The grid (h, w) that a number of rows is for.

    Args:
        raw: the file.
        config: what `settings` gives.
        patch: side of a patch in pixels.
        rows: of the position embeddings without those of prefix tokens, or of BEiT's table.
        counted: what was counted, for messages.
        relative: whether it is BEiT's table.

    Raises:
        InputError: `config.json` says another one, or there is none and the rows make no square.
    """
    told = config.get("image_size")
    # transformers' patch projection leaves out pixels that fill no patch.
    grid = _square(rows, relative) if told is None else _whole(_sides(raw, told), patch)
    if min(grid) < 1 or (table_rows(grid) if relative else grid[0] * grid[1]) != rows:
        if told is None:
            raise InputError(f"{raw.path}: {counted} make no square grid; a config.json with image_size is needed beside it")
        raise InputError(
            f"{raw.path}: its config.json says image_size {told!r}, a grid of {grid[0]} x {grid[1]}; it has {counted}"
        )
    return grid


def _square(rows: int, relative: bool) -> Size:
    """The square that comes nearest."""
    side = (math.isqrt(max(rows - EXTRA, 0)) + 1) // 2 if relative else math.isqrt(max(rows, 0))
    return side, side


def _whole(sides: Size, patch: int) -> Size:
    return sides[0] // patch, sides[1] // patch


def _sides(raw: RawCheckpoint, told: Any) -> Size:
    sides = told if isinstance(told, list) else [told, told]
    if len(sides) != 2 or not all(type(side) is int for side in sides):
        raise InputError(f"{raw.path}: config.json says image_size {told!r}; one or two whole numbers are needed")
    return sides[0], sides[1]


def statistics(raw: RawCheckpoint, silent: Silent) -> tuple[Rgb, Rgb, str]:
    """Mean and std for pixels in 0..1, and a note where they are assumed.

    Raises:
        InputError: a `preprocessor_config.json` whose numbers cannot be used.
    """
    told = raw.preprocessor
    if "image_mean" not in told and told.get("do_normalize", True):
        mean, std = silent.statistics
        return mean, std, f"mean {mean} and std {std} are assumed: no preprocessor_config.json says them"
    normalised = told.get("do_normalize", True)
    mean, std = (told["image_mean"], told.get("image_std")) if normalised else ([0.0] * 3, [1.0] * 3)
    factor = _factor(raw)
    return _rgb(raw, "image_mean", mean, factor), _rgb(raw, "image_std", std, factor), ""


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
