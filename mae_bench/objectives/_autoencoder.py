"""The masked autoencoder of arXiv 2111.06377, written from the paper.

The mask is 1 where a patch is removed and 0 where it is kept.
Letters in shape comments: B batch, N patches, K kept, M removed (M = N - K), P prefix tokens, C width, p patch size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from backbones.contract import BackboneSpec
from backbones.initial import TOKEN_STD, initialise_linear
from backbones.positions import sincos_2d
from backbones.stem import take
from backbones.vit import TimmViT
from mae_bench.core.errors import ConfigError
from mae_bench.objectives._masks import num_kept
from mae_bench.objectives._parts import start, to_input
from mae_bench.objectives._targets import Components, NormalisedPixels, Pixels
from mae_bench.objectives.mae import Config

NORM_EPS = 1e-6
"""Of every LayerNorm, timm's own value for its blocks."""


@dataclass(frozen=True)
class Prediction:
    """What the decoder says about the removed patches, or about all of them."""

    values: Tensor
    """(B, M, D), in the units of the target; for pixels D = p * p * 3."""
    ids: Tensor
    """(B, M) numbers of the patches predicted."""
    mask: Tensor
    """(B, N), 1 = removed."""


class MaskedAutoencoder(nn.Module):
    """A backbone that sees the kept patches only, and a light decoder that predicts the removed ones."""

    def __init__(self, backbone: TimmViT, config: Config) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        spec = backbone.spec
        self.grid = (spec.image_size[0] // spec.patch_size, spec.image_size[1] // spec.patch_size)
        self.num_kept = num_kept(self.grid, config.mask_ratio)
        start(backbone)
        self.target = _target(spec, config)
        self.decoder = Decoder(spec, self.grid, config, self.target.dim)
        self.mask_token: nn.Parameter | None = None
        if config.encoder_mask_tokens:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, spec.embed_dim))
            nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of a batch of uint8 `images` (B, 3, H, W) under the masks of `noise` (B, N)."""
        return {"reconstruction": self.loss(to_input(batch["images"], self.backbone.spec), batch["noise"])}

    def loss(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error over the removed patches, or over all where the settings say so.

        Args:
            pixels: (B, 3, H, W), normalised.
            noise: (B, N); the patches with the smallest values are kept.
        """
        predicted = self.predict(pixels, noise)
        patches = take(patchify(pixels, self.backbone.spec.patch_size), predicted.ids)
        return functional.mse_loss(predicted.values.float(), self.target(patches))

    def predict(self, pixels: Tensor, noise: Tensor) -> Prediction:
        """Mask, encode what is left and predict what is not."""
        order = noise.argsort(dim=1)
        ids_kept, ids_removed = order[:, : self.num_kept], order[:, self.num_kept :]
        mask = torch.ones(noise.shape, device=noise.device).scatter(1, ids_kept, 0.0)
        if self.mask_token is None:
            latent = self.backbone.encode_kept(pixels, ids_kept)
        else:
            latent = self.backbone.encode_masked(pixels, order, self.num_kept, self.mask_token)
        wanted = order if self.config.loss_on == "all" else ids_removed
        return Prediction(self.decoder(latent, order, wanted.shape[1]), wanted, mask)


class Decoder(nn.Module):
    """Transformer blocks over kept and mask tokens.

    Tokens stay in the shuffled order, kept ones first: blocks do not care for order, positions are added by number, and the
    removed patches are one slice, so that the end of the network is computed for them alone.
    """

    positions: Tensor

    def __init__(self, spec: BackboneSpec, grid: tuple[int, int], config: Config, target_dim: int) -> None:
        super().__init__()
        dim, self.num_prefix = config.decoder_dim, spec.num_prefix_tokens
        self.checkpointing = config.checkpointing
        if dim % config.decoder_heads or dim % 4:
            raise ConfigError(f"mae.decoder_dim={dim} does not divide into {config.decoder_heads} heads and 4 parts of positions")
        first = Block if config.decoder_depth == 1 or config.encoder_mask_tokens else FirstBlock
        kinds = [first, *[Block] * (config.decoder_depth - 1)]
        blocks = [kind(dim, config.decoder_heads, qkv_bias=True) for kind in kinds]
        self.embed = nn.Linear(spec.embed_dim, dim)
        self.mask_token: nn.Parameter | None = None
        if not config.encoder_mask_tokens:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("positions", sincos_2d(dim, grid, num_prefix=self.num_prefix))
        self.blocks = nn.ModuleList([*blocks[:-1], LastBlock(blocks[-1])])
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head = nn.Linear(dim, target_dim)
        initialise_linear(self)
        if self.mask_token is not None:
            nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, latent: Tensor, order: Tensor, wanted: int) -> Tensor:
        """Predict the last `wanted` patches of `order` (B, N), (B, wanted, D), from the encoded first ones (B, P + K, C)."""
        run = partial(checkpoint, use_reentrant=False) if self.checkpointing and torch.is_grad_enabled() else _call
        tokens, blocks = self._placed(latent, order), list(self.blocks)
        if self.mask_token is not None:
            mask_tokens = self.mask_token[0] + self.positions[0, self.num_prefix :]
            ids = order[:, tokens.shape[1] - self.num_prefix :]
            if isinstance(blocks[0], FirstBlock):
                tokens = run(blocks.pop(0), tokens, mask_tokens, ids)
            else:
                tokens = torch.cat([tokens, functional.embedding(ids, mask_tokens)], dim=1)
        for block in blocks[:-1]:
            tokens = run(block, tokens)
        return self.head(self.norm(run(blocks[-1], tokens, wanted)))

    def _placed(self, latent: Tensor, order: Tensor) -> Tensor:
        """Encoded tokens (B, P + K, C) in the decoder's width, with the positions they have in the image."""
        tokens, places = self.embed(latent), self.positions[0, self.num_prefix :]
        prefix = tokens[:, : self.num_prefix] + self.positions[:, : self.num_prefix]
        encoded = tokens[:, self.num_prefix :]
        return torch.cat([prefix, encoded + places[order[:, : encoded.shape[1]]]], dim=1)


def _call(module: nn.Module, *inputs: Any) -> Any:
    return module(*inputs)


class FirstBlock(Block):
    """A timm block in which mask tokens, the same in every image, are normed and projected once for all images."""

    def forward(self, encoded: Tensor, mask_tokens: Tensor, ids: Tensor) -> Tensor:  # type: ignore[override]  # takes them apart
        """The output (B, n + M, C) for encoded tokens (B, n, C) and those of the mask tokens (N, C) named by `ids` (B, M)."""
        qkv = cast(Attention, self.attn).qkv
        projected = qkv(self.norm1(mask_tokens))
        # In float32, since the gradient is a sum over the images; where the table is bf16 it would be summed in that.
        taken = functional.embedding(ids, projected.float()).to(projected.dtype)
        parts = torch.cat([qkv(self.norm1(encoded)), taken], dim=1).chunk(3, dim=-1)
        return _finish(self, torch.cat([encoded, functional.embedding(ids, mask_tokens)], dim=1), *parts)


class LastBlock(nn.Module):
    """A timm block whose output is wanted for the last tokens only: all tokens are keys and values, only those are queries."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.attn = cast(Attention, block.attn)

    def forward(self, tokens: Tensor, wanted: int) -> Tensor:
        """The block's output for the last `wanted` tokens, (B, wanted, C)."""
        normed, width, qkv = self.norm1(tokens), tokens.shape[-1], self.attn.qkv
        queries = functional.linear(normed[:, -wanted:], qkv.weight[:width], qkv.bias[:width])
        keys, values = functional.linear(normed, qkv.weight[width:], qkv.bias[width:]).chunk(2, dim=-1)
        return _finish(self, tokens[:, -wanted:], queries, keys, values)


def _finish(block: Block | LastBlock, tokens: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend, each part being (B, tokens of it, C), and do the rest of a block for `tokens`, those of the queries."""
    attention = cast(Attention, block.attn)
    q, k, v = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (queries, keys, values))
    mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    out = tokens + attention.proj(mixed)
    return out + block.mlp(block.norm2(out))


def patchify(images: Tensor, patch: int) -> Tensor:
    """Pixels by patch, (B, N, p * p * 3): patches row by row, in each rows, then columns, then colours."""
    batch, colours, height, width = images.shape
    tiles = images.reshape(batch, colours, height // patch, patch, width // patch, patch)
    return tiles.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """Put patches together again, (B, 3, H, W)."""
    tiles = patches.unflatten(2, (patch, patch, 3)).unflatten(1, grid)
    return tiles.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def _target(spec: BackboneSpec, config: Config) -> Pixels:
    if config.target == "pca":
        return Components(spec.patch_size, config.pca_dims)
    return NormalisedPixels(spec.patch_size) if config.norm_pix_loss else Pixels(spec.patch_size)


def prepare_target(module: nn.Module, images: Callable[[], Tensor]) -> None:
    """Fit a target that is fitted to training images (B, 3, H, W) uint8; others look at none."""
    autoencoder = cast(MaskedAutoencoder, module)
    if isinstance(autoencoder.target, Components):
        spec = autoencoder.backbone.spec
        autoencoder.target.fit(patchify(to_input(images(), spec), spec.patch_size).flatten(0, 1))
