"""Networks with rotary positions, in timm's sizes: DINOv3 (arXiv 2508.10104) and EVA-02 (arXiv 2303.11331)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.contract import Backbone, BackboneSpec, DenseOptions, Interpolation
from backbones.eva import EvaArch, TimmEva, adapt, adapt_weights, fill_buffers, initial_weights
from backbones.eva_shapes import arch_of, is_timm_eva
from backbones.vit import IMAGENET_MEAN, IMAGENET_STD
from backbones.zoo import Rgb
from backbones.zoo._shared import SIZES, spec_for

Arch = EvaArch
__all__ = ["VARIANTS", "Arch", "assemble", "empty", "initial_weights", "looks_like", "name_of", "spec_of", "weights_of"]


def _dinov3(embed_dim: int, depth: int, num_heads: int) -> EvaArch:
    return EvaArch(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        patch_size=16,
        mlp_dim=4 * embed_dim,
        num_registers=4,
        positions=False,
        prefix_positions=False,
        layer_scale=True,
        qkv_bias=False,
        rope="dinov3",
        norm_eps=1e-5,
    )


def _eva02(embed_dim: int, num_heads: int, *, large: bool = False) -> EvaArch:
    return EvaArch(
        embed_dim=embed_dim,
        depth=12,
        num_heads=num_heads,
        patch_size=14,
        # Two thirds of 4 widths for gate and value each (arXiv 2303.11331, section 2.1).
        mlp_dim=2 * (embed_dim * 8 // 3),
        mlp="swiglu_split" if large else "swiglu",
        mlp_norm=large,
        split_qkv=large,
        rope="eva02",
        rope_grid=(16, 16),
    )


VARIANTS: dict[str, EvaArch] = {
    "dinov3_small_patch16": _dinov3(384, 12, 6),
    "dinov3_base_patch16": _dinov3(768, 12, 12),
    "dinov3_large_patch16": _dinov3(1024, 24, 16),
    "eva02_tiny_patch14": _eva02(192, 3),
    "eva02_small_patch14": _eva02(384, 6),
    "eva02_base_patch14": _eva02(768, 12, large=True),
}


def empty(arch: EvaArch, spec: BackboneSpec, dense: DenseOptions | None = None) -> TimmEva:
    """Make a backbone on the meta device: names and shapes of the weights an architecture has with the dense options."""
    options = dense or DenseOptions()
    target = adapt(arch, options)
    spec = replace(spec, image_size=target.image_size, patch_size=target.patch_size, num_prefix_tokens=target.num_prefix_tokens)
    with torch.device("meta"):
        return TimmEva(target, spec, options)


def assemble(arch: EvaArch, spec: BackboneSpec, weights: Mapping[str, Tensor], dense: DenseOptions | None = None) -> TimmEva:
    """Make a backbone that has copies of the given weights; see `backbones.zoo.vit.assemble`."""
    backbone = empty(arch, spec, dense)
    state = {name: tensor.clone() for name, tensor in adapt_weights(weights, arch, backbone.options).items()}
    start = backbone.options.layer_scale
    for name, parameter in backbone.net.state_dict().items():
        if name not in state and name.endswith((".gamma_1", ".gamma_2")) and start is not None:
            state[name] = torch.full(parameter.shape, start)
    backbone.net.load_state_dict(state, assign=True)
    fill_buffers(backbone.net, state["patch_embed.proj.weight"].device)
    return backbone


def weights_of(backbone: Backbone) -> dict[str, Tensor]:
    """The weights of a backbone by timm's names; they share its memory."""
    if not isinstance(backbone, TimmEva):
        raise TypeError(f"a TimmEva is needed, not {type(backbone).__name__}")
    return backbone.net.state_dict()


def spec_of(
    arch: EvaArch,
    *,
    mean: Rgb = IMAGENET_MEAN,
    std: Rgb = IMAGENET_STD,
    method: str = "unknown",
    pretrain_data: str = "unknown",
    interpolation: Interpolation = "bicubic",
) -> BackboneSpec:
    """What consumers are told of an architecture."""
    return spec_for(
        arch, name_of(arch), mean=mean, std=std, method=method, pretrain_data=pretrain_data, interpolation=interpolation
    )


def name_of(arch: EvaArch) -> str:
    """The variant of the same sizes and parts, or these numbers; then what it has besides."""
    same = (*SIZES, "rope", "mlp")
    size = f"eva_w{arch.embed_dim}_d{arch.depth}_h{arch.num_heads}_patch{arch.patch_size}"
    for name, variant in VARIANTS.items():
        if all(getattr(arch, field) == getattr(variant, field) for field in same):
            return name
    return size + (f"_rope_{arch.rope}" if arch.rope != "none" else "") + (f"_{arch.mlp}" if arch.mlp != "gelu" else "")


def looks_like(path: Path, state: Mapping[str, Tensor], **known: Any) -> str:
    """The variant that the shapes of tensors fit, for messages; raises InputError where they fit none."""
    return name_of(arch_of(path, state, **known)) if is_timm_eva(state) else "no Eva of timm's"
