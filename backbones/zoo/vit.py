"""Plain Vision Transformers (arXiv 2010.11929) as MAE and timm have them: LayerNorm epsilon 1e-6, class token, learned positions.

Tiny and small are DeiT's (arXiv 2012.12877), base and large the ViT paper's, huge MAE's; demo is this project's own, small enough
for a CPU.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.arch import VitArch, adapt, adapt_weights
from backbones.contract import Backbone, BackboneSpec, DenseOptions, Interpolation
from backbones.relative import TENSORS
from backbones.shapes import arch_of, is_timm_vit
from backbones.vit import IMAGENET_MEAN, IMAGENET_STD, TimmViT, initial_weights
from backbones.zoo import Rgb
from backbones.zoo._shared import SIZES, spec_for

Arch = VitArch
__all__ = ["VARIANTS", "Arch", "assemble", "build", "empty", "initial_weights", "looks_like", "name_of", "spec_of", "weights_of"]


def _variant(embed_dim: int, depth: int, num_heads: int, patch_size: int, side: int = 224) -> VitArch:
    return VitArch(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        patch_size=patch_size,
        mlp_dim=4 * embed_dim,
        image_size=(side, side),
    )


VARIANTS: dict[str, VitArch] = {
    "vit_tiny_patch16": _variant(192, 12, 3, 16),
    "vit_small_patch16": _variant(384, 12, 6, 16),
    "vit_base_patch16": _variant(768, 12, 12, 16),
    "vit_large_patch16": _variant(1024, 24, 16, 16),
    "vit_huge_patch14": _variant(1280, 32, 16, 14),
    "vit_demo_patch8": _variant(128, 4, 4, 8, side=48),
}


def build(
    variant: str,
    *,
    dense: DenseOptions | None = None,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
) -> TimmViT:
    """Make a randomly initialised backbone.

    Args:
        variant: a name in `VARIANTS`.
        dense: what a dense task asks for; the weights drawn do not depend on it.
        image_size: height and width in pixels to draw the position embeddings for, instead of the variant's own.
        seed: of timm's initialisation; the global random state is neither read nor changed.
    """
    arch = VARIANTS[variant]
    if image_size is not None:
        arch = VitArch(**{**arch.model_dump(), "image_size": image_size})
    return assemble(arch, spec_of(arch, method="random", pretrain_data="none"), initial_weights(arch, seed), dense)


def empty(arch: VitArch, spec: BackboneSpec, dense: DenseOptions | None = None) -> TimmViT:
    """Make a backbone on the meta device: names and shapes of the weights an architecture has with the dense options."""
    options = dense or DenseOptions()
    target = adapt(arch, options)
    spec = replace(spec, image_size=target.image_size, num_prefix_tokens=target.num_prefix_tokens, patch_size=target.patch_size)
    with torch.device("meta"):
        return TimmViT(target, spec, options)


def assemble(arch: VitArch, spec: BackboneSpec, weights: Mapping[str, Tensor], dense: DenseOptions | None = None) -> TimmViT:
    """Make a backbone that has copies of the given weights.

    Args:
        arch: the architecture the weights belong to.
        spec: what consumers are told of it; image size and prefix tokens follow the dense options.
        weights: every tensor of the network, by timm's names.
        dense: what a dense task asks for. Relative positions that the weights lack start at zero, LayerScale at
            `dense.layer_scale`.
    """
    backbone = empty(arch, spec, dense)
    state = {name: tensor.clone() for name, tensor in adapt_weights(weights, arch, backbone.options).items()}
    for name, parameter in backbone.net.state_dict().items():
        if name not in state and name.endswith(TENSORS):
            state[name] = torch.zeros(parameter.shape)
        elif name not in state and name.endswith(".gamma") and backbone.options.layer_scale is not None:
            state[name] = torch.full(parameter.shape, backbone.options.layer_scale)
    backbone.net.load_state_dict(state, assign=True)
    return backbone


def weights_of(backbone: Backbone) -> dict[str, Tensor]:
    """The weights of a backbone by timm's names; they share its memory."""
    if not isinstance(backbone, TimmViT):
        raise TypeError(f"a TimmViT is needed, not {type(backbone).__name__}")
    return backbone.net.state_dict()


def spec_of(
    arch: VitArch,
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


def name_of(arch: VitArch) -> str:
    """The variant of the same width, depth, heads and patch size, or these numbers; then what it has besides."""
    size = f"vit_w{arch.embed_dim}_d{arch.depth}_h{arch.num_heads}_patch{arch.patch_size}"
    for name, variant in VARIANTS.items():
        if all(getattr(arch, field) == getattr(variant, field) for field in SIZES):
            size = name
    extras = [f"_reg{arch.num_registers}"] * bool(arch.num_registers) + ["_nocls"] * (not arch.class_token)
    extras += ["_ls"] * arch.layer_scale + ["_qknorm"] * arch.qk_norm + ["_prenorm"] * arch.pre_norm
    extras += [f"_{arch.mlp}"] * (arch.mlp != "gelu") + [f"_rel_{arch.relative}"] * (arch.relative != "none")
    return size + "".join(extras)


def looks_like(path: Path, state: Mapping[str, Tensor], **known: Any) -> str:
    """The variant that the shapes of tensors fit, for messages; raises InputError where they fit none."""
    return name_of(arch_of(path, state, **known)) if is_timm_vit(state) else "no Vision Transformer of timm's"
