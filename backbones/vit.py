"""timm's VisionTransformer behind the contract: any rectangle of pixels, any of its layers, windows where asked.

Letters in shape comments: B batch, N tokens, P prefix tokens, K kept patches, C width, H W pixels, h w grid.
"""

from functools import partial
from typing import Any, cast

import torch
from timm.layers.mlp import SwiGLUPacked
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from backbones import relative
from backbones.arch import VitArch
from backbones.contract import BackboneSpec, DenseOptions, Features
from backbones.initial import initialise_vit
from backbones.stem import Stem, take
from backbones.windows import GridAttention, by_parts
from mae_bench.core.seeding import derive

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# timm's starting value of LayerScale where a checkpoint does not replace it (CaiT, arXiv 2103.17239, for deep networks).
LAYER_SCALE_START = 1e-5


class TimmViT(Stem[VitArch]):
    """A timm VisionTransformer; `net` is the network itself, without a head."""

    def __init__(self, arch: VitArch, spec: BackboneSpec, options: DenseOptions | None = None) -> None:
        """Make the network; its weights have no meaning until they are loaded (`backbones.zoo.vit.assemble`).

        Args:
            arch: what to make; with the prefix tokens and the image size that `adapt` leaves of it.
            spec: what consumers are told.
            options: drop path and how positions are resized; the rest of it is in `arch` and `spec` already.
        """
        super().__init__()
        self.arch, self.spec, self.options = arch, spec, options or DenseOptions()
        self.net = make_net(arch, self.options.drop_path)

    @property
    def blocks(self) -> list[Block]:
        """The blocks of the network in order."""
        return cast(list[Block], list(self.net.blocks))

    def forward(self, images: Tensor, layers: tuple[int, ...] = (-1,), *, norm: bool = True) -> tuple[Features, ...]:
        """Run the network once; see `Backbone.forward`."""
        wanted = self.resolve(layers)
        tokens, grid = self._stem(images)
        shared = self._shared_biases(grid)
        found: dict[int, Features] = {}
        run = partial(checkpoint, self._run, use_reentrant=False) if self._recomputes else self._run
        for index, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            tokens = run(block, tokens, grid, shared.get(self.arch.windows(index)))
            if index in wanted:
                out = self.net.norm(tokens) if norm else tokens
                found[index] = Features(out, grid, self.spec.num_prefix_tokens, self.spec.patch_size)
        return tuple(found[index] for index in wanted)

    @property
    def _recomputes(self) -> bool:
        return self.options.checkpointing and self.training and torch.is_grad_enabled()

    def encode_kept(self, images: Tensor, ids_keep: Tensor) -> Tensor:
        """Run the network on some of the patches only, as MAE's encoder does.

        Args:
            images: (B, 3, H, W), normalised.
            ids_keep: (B, K) numbers of the patches kept in each image; they keep the positions they have in the whole image.

        Returns:
            (B, P + K, C) after the final norm, patches in the order of `ids_keep`.
        """
        if self.arch.on_grid:
            raise ValueError("kept patches form no grid: windows and relative positions cannot be used with encode_kept")
        return self._encode(self._some_patches(images, ids_keep))

    def encode_masked(self, images: Tensor, order: Tensor, num_kept: int, mask_token: Tensor) -> Tensor:
        """Run the network on all patches, with a mask token in the place of the removed ones, as BERT's encoder does.

        Args:
            images: (B, 3, H, W), normalised, of the size the network is built for.
            order: (B, N) numbers of all patches, kept ones first.
            num_kept: how many of them are kept.
            mask_token: (1, 1, C); it takes the positions of the patches it stands for.

        Returns:
            (B, P + N, C) after the final norm, patches in the order of `order`.
        """
        if self.arch.on_grid:
            raise ValueError("shuffled patches form no grid: windows and relative positions cannot be used with encode_masked")
        kept = self._some_patches(images, order[:, :num_kept])
        places = self.positions[:, self.arch.num_prefix_rows :].expand(len(images), -1, -1)
        return self._encode(torch.cat([kept, mask_token + take(places, order[:, num_kept:])], dim=1))

    def _encode(self, patches: Tensor) -> Tensor:
        tokens = self.net.norm_pre(self._with_prefix(patches))
        if not self._recomputes:
            return self.net.norm(self.net.blocks(tokens))
        for block in self.blocks:
            tokens = cast(Tensor, checkpoint(block, tokens, use_reentrant=False))
        return self.net.norm(tokens)

    def _stem(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What goes into the first block, (B, P + h*w, C), and the grid."""
        patches, grid = self._patches(images)
        return self.net.norm_pre(self._with_prefix(patches)), grid

    def _shared_biases(self, grid: tuple[int, int]) -> dict[int, Tensor]:
        """What the shared table adds to the scores, by the side of the windows it is for; 0 is the whole grid."""
        if self.arch.relative != "shared_table":
            return {}
        table, stored = cast(Any, self.net).rel_pos_bias.relative_position_bias_table, self.arch.relative_grid or self.arch.grid
        sides = {self.arch.windows(block) for block in range(self.arch.depth)}
        prefix = self.arch.num_prefix_tokens
        return {side: relative.table_bias(table, stored, (side, side) if side else grid, prefix) for side in sides}

    def _run(self, block: Block, tokens: Tensor, grid: tuple[int, int], bias: Tensor | None) -> Tensor:
        if not self.arch.on_grid:
            return block(tokens)
        # timm's Block.forward, with the grid handed to the attention.
        tokens = tokens + block.drop_path1(block.ls1(block.attn(block.norm1(tokens), grid, bias)))
        return tokens + block.drop_path2(block.ls2(by_parts(block.mlp, block.norm2(tokens))))


def make_net(arch: VitArch, drop_path: float = 0.0, *, initialise: bool = False) -> VisionTransformer:
    """Make the network of an architecture with timm, without a head."""
    gated = arch.mlp == "swiglu"
    net = VisionTransformer(
        img_size=arch.image_size,
        patch_size=arch.patch_size,
        num_classes=0,
        global_pool="",
        embed_dim=arch.embed_dim,
        depth=arch.depth,
        num_heads=arch.num_heads,
        # timm cuts the product with the width to an integer; the half keeps rounding from losing one.
        mlp_ratio=(arch.mlp_dim + 0.5) / arch.embed_dim,
        qkv_bias=arch.qkv_bias,
        qk_norm=arch.qk_norm,
        init_values=LAYER_SCALE_START if arch.layer_scale else None,
        class_token=arch.class_token,
        pos_embed="learn" if arch.positions else "none",
        no_embed_class=not arch.prefix_positions,
        reg_tokens=arch.num_registers,
        pre_norm=arch.pre_norm,
        final_norm=arch.final_norm,
        dynamic_img_size=True,
        drop_path_rate=drop_path,
        norm_layer=partial(LayerNorm, eps=arch.norm_eps),
        act_layer=cast(Any, nn.SiLU if gated else arch.mlp),
        **({"mlp_layer": cast(Any, SwiGLUPacked)} if gated else {}),
        weight_init="" if initialise else "skip",
    )
    _fit_patch_bias(net, arch)
    if arch.on_grid:
        _put_grid_attention(net, arch)
    return net


def _fit_patch_bias(net: VisionTransformer, arch: VitArch) -> None:
    """Give the patch projection a bias or none; timm ties that to the norm before the blocks."""
    projection = net.patch_embed.proj
    if arch.patch_bias and projection.bias is None:
        projection.bias = nn.Parameter(projection.weight.new_zeros(arch.embed_dim))
    if not arch.patch_bias:
        projection.bias = None


def _put_grid_attention(net: VisionTransformer, arch: VitArch) -> None:
    for index, block in enumerate(cast(list[Block], list(net.blocks))):
        block.attn = GridAttention(block.attn, window=arch.windows(index), side=arch.side(index), relative_kind=arch.relative)
    if arch.relative == "shared_table":
        grid = arch.relative_grid or arch.grid
        shared = nn.Module()
        zeros = net.patch_embed.proj.weight.new_zeros(relative.table_rows(grid), arch.num_heads)
        shared.register_parameter(relative.TABLE, nn.Parameter(zeros))
        net.add_module("rel_pos_bias", shared)


def initial_weights(arch: VitArch, seed: int) -> dict[str, Tensor]:
    """Draw the weights that MAE starts from; the same for the same seed, and the global generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reseed the accelerators that are not forked here.
        torch.default_generator.manual_seed(derive("backbone", seed))
        net = make_net(arch, initialise=True)
        initialise_vit(net, arch)
        return net.state_dict()
