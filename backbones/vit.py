"""timm's VisionTransformer behind the contract: any rectangle of pixels, any of its layers, windows where asked.

Letters in shape comments: B batch, N tokens, P prefix tokens, K kept patches, C width, H W pixels, h w grid.
"""

from collections.abc import Mapping
from functools import partial
from typing import Self, cast

import torch
from pydantic import NonNegativeInt, PositiveInt, model_validator
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from backbones.contract import Backbone, BackboneSpec, DenseOptions, Features
from backbones.positions import resample, sincos_2d
from backbones.windows import GridAttention
from mae_bench.core.config import Config
from mae_bench.core.seeding import derive

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# timm's starting value of LayerScale where a checkpoint does not replace it (CaiT, arXiv 2103.17239, for deep networks).
LAYER_SCALE_START = 1e-5

STEM = ("net.patch_embed.", "net.pos_embed", "net.cls_token", "net.reg_token", "net.norm_pre.")


class VitArch(Config):
    """Everything about a network that its tensors are shaped by, and the two facts they do not show (heads, epsilon)."""

    embed_dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt
    patch_size: PositiveInt
    mlp_dim: PositiveInt
    image_size: tuple[PositiveInt, PositiveInt] = (224, 224)
    """Height and width in pixels the position embeddings belong to."""
    class_token: bool = True
    num_registers: NonNegativeInt = 0
    prefix_positions: bool = True
    """Whether prefix tokens have rows of their own in the position embeddings."""
    layer_scale: bool = False
    qkv_bias: bool = True
    qk_norm: bool = False
    final_norm: bool = True
    """False for networks whose last norm follows the pooling and so belongs to the head."""
    norm_eps: float = 1e-6

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"a width of {self.embed_dim} cannot be shared by {self.num_heads} heads")
        if any(side % self.patch_size for side in self.image_size):
            raise ValueError(f"image size {self.image_size} is not made of whole patches of {self.patch_size} pixels")
        return self

    @property
    def num_prefix_tokens(self) -> int:
        """Class token and registers."""
        return int(self.class_token) + self.num_registers

    @property
    def num_prefix_rows(self) -> int:
        """Rows of the position embeddings that belong to prefix tokens."""
        return self.num_prefix_tokens if self.prefix_positions else 0

    @property
    def grid(self) -> tuple[int, int]:
        """Grid (h, w) of the position embeddings."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size


class TimmViT(Backbone):
    """A timm VisionTransformer; `net` is the network itself, without a head."""

    def __init__(self, arch: VitArch, spec: BackboneSpec, options: DenseOptions | None = None) -> None:
        """Make the network; its weights have no meaning until they are loaded (`backbones.zoo.vit.assemble`).

        Args:
            arch: what to make; with the prefix tokens and the image size that `adapt` leaves of it.
            spec: what consumers are told.
            options: windows, relative positions and drop path; the rest of it is in `arch` and `spec` already.
        """
        super().__init__()
        self.arch, self.spec, self.options = arch, spec, options or DenseOptions()
        self.net = make_net(arch, self.options.drop_path)
        self.dense = bool(self.options.window or self.options.rel_pos)
        if self.dense:
            self._put_grid_attention()

    @property
    def blocks(self) -> list[Block]:
        """The blocks of the network in order."""
        return cast(list[Block], list(self.net.blocks))

    @property
    def positions(self) -> nn.Parameter:
        """The stored position embeddings, (1, rows, C)."""
        return cast(nn.Parameter, self.net.pos_embed)

    def forward(self, images: Tensor, layers: tuple[int, ...] = (-1,), *, norm: bool = True) -> tuple[Features, ...]:
        """Run the network once; see `Backbone.forward`."""
        wanted = self.resolve(layers)
        patches, grid = self._patches(images)
        tokens = self._with_prefix(patches)
        found: dict[int, Features] = {}
        for index, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            tokens = self._run(block, tokens, grid)
            if index in wanted:
                out = self.net.norm(tokens) if norm else tokens
                found[index] = Features(out, grid, self.spec.num_prefix_tokens, self.spec.patch_size)
        return tuple(found[index] for index in wanted)

    def encode_kept(self, images: Tensor, ids_keep: Tensor) -> Tensor:
        """Run the network on some of the patches only, as MAE's encoder does.

        Args:
            images: (B, 3, H, W), normalised.
            ids_keep: (B, K) numbers of the patches kept in each image; they keep the positions they have in the whole image.

        Returns:
            (B, P + K, C) after the final norm, patches in the order of `ids_keep`.
        """
        if self.dense:
            raise ValueError("kept patches form no grid: windows and relative positions cannot be used with encode_kept")
        patches, _ = self._patches(images)
        kept = patches.gather(1, ids_keep.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        return self.net.norm(self.net.blocks(self._with_prefix(kept)))

    def layer_id(self, parameter_name: str) -> int:
        """Depth of a parameter, named as in `named_parameters()`; see `Backbone.layer_id`."""
        if parameter_name.startswith(STEM):
            return 0
        if parameter_name.startswith("net.blocks."):
            return int(parameter_name.split(".")[2]) + 1
        return self.spec.depth + 1

    def set_sincos_positions(self) -> None:
        """Put MAE's fixed sine-cosine positions in place of the learned ones and stop training them."""
        arch = self.arch
        table = sincos_2d(arch.embed_dim, arch.grid, num_prefix=arch.num_prefix_rows)
        with torch.no_grad():
            self.positions.copy_(table)
        self.positions.requires_grad_(False)

    def _patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patch tokens (B, h*w, C) with their positions added, and the grid."""
        size, patch = (images.shape[-2], images.shape[-1]), self.spec.patch_size
        if size[0] % patch or size[1] % patch:
            whole = " x ".join(str(max(side // patch, 1) * patch) for side in size)
            raise ValueError(
                f"{size[0]} x {size[1]} pixels are not whole patches of {patch}; resize or pad the image, to {whole} say"
            )
        patches = self.net.patch_embed(images)
        grid = (patches.shape[1], patches.shape[2])
        rows = self.arch.num_prefix_rows
        positions = resample(self.positions, self.arch.grid, grid, num_prefix=rows, antialias=self.options.antialias)
        return patches.flatten(1, 2) + positions[:, rows:], grid

    def _with_prefix(self, patches: Tensor) -> Tensor:
        """Prefix tokens, with their positions where they have some, in front of the patch tokens: (B, P + N, C)."""
        net, rows = self.net, self.arch.num_prefix_rows
        prefix: list[Tensor] = [token for token in (net.cls_token, net.reg_token) if token is not None]
        if not prefix:
            return patches
        tokens = torch.cat(prefix, dim=1)
        if rows:
            tokens = tokens + self.positions[:, :rows]
        return torch.cat([tokens.expand(patches.shape[0], -1, -1), patches], dim=1)

    def _run(self, block: Block, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        if not self.dense:
            return block(tokens)
        # timm's Block.forward, with the grid handed to the attention.
        tokens = tokens + block.drop_path1(block.ls1(block.attn(block.norm1(tokens), grid)))
        return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))

    def _put_grid_attention(self) -> None:
        options, built_for = self.options, options_grid(self.arch, self.options)
        if self.arch.num_prefix_tokens:
            raise ValueError("windows and relative positions are for patch tokens alone; build with keep_prefix=False")
        whole = self.resolve(options.global_layers)
        for index, block in enumerate(self.blocks):
            window = 0 if index in whole else options.window
            side = (window, window) if window else built_for
            block.attn = GridAttention(block.attn, window=window, rel_pos=side if options.rel_pos else None)


def make_net(arch: VitArch, drop_path: float = 0.0, *, initialise: bool = False) -> VisionTransformer:
    """Make the network of an architecture with timm, without a head."""
    return VisionTransformer(
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
        no_embed_class=not arch.prefix_positions,
        reg_tokens=arch.num_registers,
        final_norm=arch.final_norm,
        dynamic_img_size=True,
        drop_path_rate=drop_path,
        norm_layer=partial(LayerNorm, eps=arch.norm_eps),
        weight_init="" if initialise else "skip",
    )


def options_grid(arch: VitArch, options: DenseOptions) -> tuple[int, int]:
    """Grid (h, w) that dense options build for.

    Raises:
        ValueError: an image size that is not made of whole patches.
    """
    height, width = options.image_size or arch.image_size
    patch = arch.patch_size
    if height % patch or width % patch:
        raise ValueError(f"image_size {height} x {width} is not made of whole patches of {patch} pixels")
    return height // patch, width // patch


def adapt(arch: VitArch, options: DenseOptions) -> VitArch:
    """The architecture that is left when dense options are applied: its image size and its prefix tokens."""
    grid = options_grid(arch, options)
    changes: dict[str, object] = {}
    if not options.stored_positions:
        changes["image_size"] = (grid[0] * arch.patch_size, grid[1] * arch.patch_size)
    if not options.keep_prefix:
        changes |= {"class_token": False, "num_registers": 0}
    return arch.model_copy(update=changes)


def adapt_weights(state: Mapping[str, Tensor], arch: VitArch, options: DenseOptions) -> dict[str, Tensor]:
    """Weights of `arch`, named as in the network, brought to `adapt(arch, options)`."""
    target, state = adapt(arch, options), dict(state)
    positions = resample(state["pos_embed"], arch.grid, target.grid, num_prefix=arch.num_prefix_rows, antialias=options.antialias)
    state["pos_embed"] = positions[:, arch.num_prefix_rows - target.num_prefix_rows :]
    if not options.keep_prefix:
        state.pop("cls_token", None)
        state.pop("reg_token", None)
    return state


def initial_weights(arch: VitArch, seed: int) -> dict[str, Tensor]:
    """Draw random weights as timm does; the same for the same seed, and the global generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also reseed the accelerators that are not forked here.
        torch.default_generator.manual_seed(derive("backbone", seed))
        return make_net(arch, initialise=True).state_dict()
