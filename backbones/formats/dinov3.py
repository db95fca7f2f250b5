"""Files of DINOv3 (arXiv 2508.10104) in its own layout: storage tokens, and the wavelengths of its rotary positions."""

import torch
from torch import Tensor

from backbones.eva import TEMPERATURE
from backbones.families import Converted, Evidence
from backbones.formats._common import HEADS, MEAN_ASSUMED, as_eva
from backbones.naming import Translated, gate_first, translate
from backbones.reading import RawCheckpoint
from mae_bench.core.errors import InputError

NAME = "DINOv3's own files"
EVIDENCE = Evidence.MARK

PERIODS = "rope_embed.periods"
RULES = {
    r"storage_tokens": "reg_token",
    r"(blocks\.\d+\.)ls([12])\.gamma": r"\1gamma_\2",
    r"(blocks\.\d+\.mlp\.)w1\.(.+)": r"\1gate.\2",
    r"(blocks\.\d+\.mlp\.)w2\.(.+)": r"\1value.\2",
    r"(blocks\.\d+\.mlp\.)w3\.(.+)": r"\1fc2.\2",
}
DROPPED = {
    **HEADS,
    r"mask_token$": "token of masked patches, part of the pretraining",
    r"rope_embed\.periods$": "wavelengths of the rotary positions, which are made anew",
    r"local_cls_norm\.": "norm of small crops in the pretraining",
    r"blocks\.\d+\.attn\.qkv\.bias_mask$": "zeros where keys have no bias",
}
# Files keep wavelengths in bfloat16, which has 8 bits.
ROUNDING = 2**-8
ROUNDED = "wavelengths of the rotary positions are computed in float32; the file has them rounded to bfloat16"


def recognise(raw: RawCheckpoint) -> bool:
    """Storage tokens, or the wavelengths."""
    if "patch_embed.proj.weight" not in raw.state:
        return False
    return "storage_tokens" in raw.state or PERIODS in raw.state


def convert(raw: RawCheckpoint) -> Converted:
    """Bring the names to timm's Eva; see that keys have no bias and that the wavelengths are those that are computed."""
    if "cls_norm.weight" in raw.state:
        raise InputError(f"{raw.path}: has a norm for the class token and one for patches (cls_norm), which is not supported")
    translated = translate(raw.path, raw.state, RULES, DROPPED)
    gate_first(translated, r"(blocks\.\d+\.mlp\.)gate\.(weight|bias)", r"\1value.\2", r"\1fc1.\2")
    for name in [name for name in translated.state if name.endswith(".attn.qkv.bias")]:
        _split_bias(raw, translated, name)
    notes, known = [MEAN_ASSUMED], {}
    if PERIODS in raw.state:
        periods = raw.state[PERIODS]
        _check_periods(raw, periods)
        # A quarter of a head's width: sine and cosine of row and column.
        known["num_heads"] = max(raw.state["patch_embed.proj.weight"].shape[0] // (4 * periods.numel()), 1)
        if periods.dtype == torch.bfloat16:
            notes.append(ROUNDED)
    return as_eva(raw, translated, method="dinov3", notes=notes, **known)


def _split_bias(raw: RawCheckpoint, translated: Translated, name: str) -> None:
    """Biases of queries and values from that of all three, which is masked for keys."""
    bias = translated.state[name]
    mask = raw.state.get(name + "_mask")
    if mask is not None and mask.shape == bias.shape and not mask.isnan().any():
        bias = bias * mask.to(bias.dtype)
    if bias.ndim != 1 or bias.shape[0] % 3:
        raise InputError(f"{raw.path}: {name} is {tuple(bias.shape)}, which is not three biases")
    queries, keys, values = bias.chunk(3)
    if keys.any():
        raise InputError(f"{raw.path}: {name} has biases for keys, which this architecture has not")
    base, origin = name.removesuffix("qkv.bias"), translated.origin[name]
    translated.replace(f"{base}q_bias", queries, name)
    translated.state[f"{base}v_bias"], translated.origin[f"{base}v_bias"] = values, origin


def _check_periods(raw: RawCheckpoint, periods: Tensor) -> None:
    """See that wavelengths are those of the temperature DINOv3 was trained with, but for rounding."""
    if periods.ndim != 1 or not periods.numel() or not periods.is_floating_point():
        raise InputError(f"{raw.path}: {PERIODS} is {tuple(periods.shape)}; a line of wavelengths is needed")
    expected = TEMPERATURE["dinov3"] ** (torch.arange(periods.numel(), dtype=torch.float64) / periods.numel())
    if not torch.allclose(periods.double(), expected, rtol=ROUNDING, atol=0):
        raise InputError(f"{raw.path}: {PERIODS} are not the wavelengths of temperature 100; this variant is not supported")
