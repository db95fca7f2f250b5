"""timm's Eva behind the contract: EVA-02 (arXiv 2303.11331) and DINOv3 (arXiv 2508.10104), whose attention turns by position.

Letters in shape comments: B batch, P prefix tokens, C width, h w grid.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, Self

import torch
from pydantic import PositiveInt, model_validator
from timm.layers.norm import LayerNorm
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from backbones.arch import Arch, options_grid
from backbones.contract import BackboneSpec, DenseOptions, Features
from backbones.positions import resample, resize_kernel
from backbones.stem import Stem
from mae_bench.core.seeding import derive

# timm's starting value of LayerScale where a checkpoint does not replace it; DINOv3's own too.
LAYER_SCALE_START = 1e-5
# Base of the wavelengths: EVA-02's is RoFormer's (arXiv 2104.09864), DINOv3's that of its `RopePositionEmbedding`.
TEMPERATURE = {"eva02": 10000.0, "dinov3": 100.0}

Mlp = Literal["gelu", "swiglu", "swiglu_split"]
Rope = Literal["none", "eva02", "dinov3"]


class EvaArch(Arch):
    """Everything about a network that its tensors are shaped by, and the facts they do not show."""

    mlp: Mlp = "gelu"
    """`swiglu` has gate and value in one tensor, `swiglu_split` in two."""
    mlp_norm: bool = False
    """Whether a norm stands before the last layer of the MLP (EVA-02 base and large); needs `swiglu_split` where it is gated."""
    attention_norm: bool = False
    """Whether a norm stands before the last layer of the attention (EVA-02 CLIP)."""
    split_qkv: bool = False
    """Whether queries, keys and values have a weight each (EVA-02 base and large). Keys never have a bias."""
    rope: Rope = "none"
    """Rotary positions of patch tokens: by row and column (EVA-02), or by the place between the borders (DINOv3)."""
    rope_grid: tuple[PositiveInt, PositiveInt] | None = None
    """Grid (h, w) that the rows and columns of EVA-02's rotary positions are scaled to; None leaves them as they are."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.mlp != "gelu" and self.mlp_dim % 2:
            raise ValueError(f"an MLP of {self.mlp_dim} cannot be halved into gate and value")
        if self.mlp == "swiglu" and self.mlp_norm:
            raise ValueError("a gated MLP with a norm has gate and value apart: mlp=swiglu_split")
        if self.mlp == "swiglu_split" and not self.mlp_norm:
            raise ValueError("a gated MLP with gate and value apart has a norm; without one use mlp=swiglu")
        if self.rope != "none" and (self.embed_dim // self.num_heads) % 4:
            raise ValueError(f"rotary positions need heads of a multiple of 4, not {self.embed_dim // self.num_heads}")
        if self.rope_grid is not None and self.rope != "eva02":
            raise ValueError(f"a rope_grid belongs to rope=eva02, not {self.rope}")
        return self


class TimmEva(Stem[EvaArch]):
    """A timm Eva; `net` is the network itself, without a head."""

    def __init__(self, arch: EvaArch, spec: BackboneSpec, options: DenseOptions | None = None) -> None:
        """Make the network; its weights have no meaning until they are loaded (`backbones.zoo.eva.assemble`).

        Args:
            arch: what to make; with the prefix tokens and the image size that `adapt` leaves of it.
            spec: what consumers are told.
            options: drop path and how positions are resized; the rest of it is in `arch` and `spec` already.
        """
        super().__init__()
        self.arch, self.spec, self.options = arch, spec, options or DenseOptions()
        self.net = make_net(arch, self.options.drop_path)

    def forward(self, images: Tensor, layers: tuple[int, ...] = (-1,), *, norm: bool = True) -> tuple[Features, ...]:
        """Run the network once; see `Backbone.forward`."""
        wanted = self.resolve(layers)
        patches, grid = self._patches(images)
        tokens = self._with_prefix(patches)
        # (h*w, 2 * width of a head): sines and cosines of this grid.
        rope = self.net.rope.get_embed(shape=list(grid)) if self.net.rope is not None else None
        found: dict[int, Features] = {}
        recomputed = self.options.checkpointing and self.training and torch.is_grad_enabled()
        for index, block in enumerate(self.net.blocks[: max(wanted, default=-1) + 1]):
            run = partial(checkpoint, block, use_reentrant=False) if recomputed else block
            tokens = run(tokens, rope=rope)
            if index in wanted:
                out = self.net.norm(tokens) if norm else tokens
                found[index] = Features(out, grid, self.spec.num_prefix_tokens, self.spec.patch_size)
        return tuple(found[index] for index in wanted)


def adapt(arch: EvaArch, options: DenseOptions) -> EvaArch:
    """The architecture that is left when dense options are applied.

    Raises:
        ValueError: windows or relative positions, which this network does not have.
    """
    asked = {"window": options.window, "rel_pos": options.rel_pos, "relative_table": options.relative_table}
    for name, value in asked.items():
        if value:
            raise ValueError(
                f"{name}={value}: networks of the EVA-02 and DINOv3 kind have neither windows nor relative positions"
            )
    grid = options_grid(arch, options)
    facts = arch.model_dump()
    facts["patch_size"] = patch = options.patch_size or arch.patch_size
    stored = arch.grid if options.stored_positions else grid
    facts["image_size"] = (stored[0] * patch, stored[1] * patch)
    if not options.keep_prefix:
        facts |= {"class_token": False, "num_registers": 0}
    if options.layer_scale is not None:
        facts["layer_scale"] = True
    return EvaArch(**facts)


def adapt_weights(state: Mapping[str, Tensor], arch: EvaArch, options: DenseOptions) -> dict[str, Tensor]:
    """Weights of `arch`, named as in the network, brought to `adapt(arch, options)`; what they lack stays missing."""
    target, state = adapt(arch, options), dict(state)
    if arch.positions:
        rows = arch.num_prefix_rows
        resized = resample(state["pos_embed"], arch.grid, target.grid, num_prefix=rows, antialias=options.antialias)
        state["pos_embed"] = resized[:, rows - target.num_prefix_rows :]
    state["patch_embed.proj.weight"] = resize_kernel(state["patch_embed.proj.weight"], target.patch_size)
    if not options.keep_prefix:
        state.pop("cls_token", None)
        state.pop("reg_token", None)
    return state


class _Undrawn(Eva):
    """timm's Eva without initial weights, for those that are loaded; to draw them on the meta device takes seconds."""

    def init_weights(self, needs_reset: bool = True) -> None:
        """Leave the weights as they are."""


def make_net(arch: EvaArch, drop_path: float = 0.0, *, initialise: bool = False) -> Eva:
    """Make the network of an architecture with timm, without a head."""
    hidden = arch.mlp_dim if arch.mlp == "gelu" else arch.mlp_dim // 2
    return (Eva if initialise else _Undrawn)(
        img_size=arch.image_size,
        patch_size=arch.patch_size,
        num_classes=0,
        global_pool="",
        embed_dim=arch.embed_dim,
        depth=arch.depth,
        num_heads=arch.num_heads,
        qkv_bias=arch.qkv_bias,
        qkv_fused=not arch.split_qkv,
        # timm cuts the product with the width to an integer; the half keeps rounding from losing one.
        mlp_ratio=(hidden + 0.5) / arch.embed_dim,
        swiglu_mlp=arch.mlp != "gelu",
        scale_mlp=arch.mlp_norm,
        scale_attn_inner=arch.attention_norm,
        drop_path_rate=drop_path,
        norm_layer=partial(LayerNorm, eps=arch.norm_eps),
        init_values=LAYER_SCALE_START if arch.layer_scale else None,
        class_token=arch.class_token,
        num_reg_tokens=arch.num_registers,
        no_embed_class=not arch.prefix_positions,
        use_abs_pos_emb=arch.positions,
        use_rot_pos_emb=arch.rope != "none",
        rope_type="dinov3" if arch.rope == "dinov3" else "cat",
        rope_temperature=TEMPERATURE.get(arch.rope, 0.0),
        rope_rotate_half=arch.rope == "dinov3",
        ref_feat_shape=arch.rope_grid,
        use_post_transformer_norm=arch.final_norm,
        use_fc_norm=False,
        dynamic_img_size=True,
    )


def fill_buffers(net: nn.Module, device: torch.device) -> None:
    """Compute what the network has besides weights (wavelengths, biases of zero), where it was made without memory."""
    modules: list[Any] = list(net.modules())
    for module in modules:
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device=device)
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()


def initial_weights(arch: EvaArch, seed: int) -> dict[str, Tensor]:
    """Draw random weights as timm does; the same for the same seed, and the global generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reseed the accelerators that are not forked here.
        torch.default_generator.manual_seed(derive("backbone", seed))
        return make_net(arch, initialise=True).state_dict()
