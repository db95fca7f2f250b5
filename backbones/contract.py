"""The one contract between a backbone and everything that is built on it.

Letters in shape comments: B batch, N tokens, P prefix tokens, C width, H W pixels, h w grid.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Pool = Literal["cls", "mean"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class BackboneSpec:
    """What consumers size themselves from; nobody types an embedding width."""

    name: str
    embed_dim: int
    depth: int
    patch_size: int
    num_prefix_tokens: int
    image_size: tuple[int, int]
    """Height and width in pixels that the stored position embeddings belong to."""
    mean: tuple[float, float, float]
    """Per-channel mean of the input in RGB order, for pixels in 0..1."""
    std: tuple[float, float, float]
    method: str = "unknown"
    """How it was pretrained: `mae`, `simclr`, `supervised`, `random`, ..."""
    pretrain_data: str = "unknown"
    interpolation: Interpolation = "bicubic"
    """How its images were resized to the input in training."""


@dataclass(frozen=True)
class Features:
    """The one currency between backbone and head."""

    tokens: Tensor
    """(B, P + h*w, C), prefix tokens first."""
    grid: tuple[int, int]
    num_prefix_tokens: int
    patch_size: int

    @property
    def prefix(self) -> Tensor:
        """Class and register tokens, (B, P, C)."""
        return self.tokens[:, : self.num_prefix_tokens]

    @property
    def patches(self) -> Tensor:
        """Patch tokens in row-major order, (B, h*w, C)."""
        return self.tokens[:, self.num_prefix_tokens :]

    @property
    def map(self) -> Tensor:
        """Patch tokens as an image, (B, C, h, w)."""
        h, w = self.grid
        return self.patches.transpose(1, 2).reshape(self.tokens.shape[0], -1, h, w)

    def pool(self, how: Pool) -> Tensor:
        """One vector an image, (B, C): the class token, or the mean of the patch tokens."""
        if how == "mean":
            return self.patches.mean(dim=1)
        if self.num_prefix_tokens == 0:
            raise ValueError("pool 'cls' needs a class token, and this backbone has none; use 'mean'")
        return self.tokens[:, 0]


@dataclass(frozen=True)
class DenseOptions:
    """What a task asks for when the backbone is built; the defaults change nothing."""

    image_size: tuple[int, int] | None = None
    """Height and width in pixels the backbone is built for: position embeddings are resized to it, relative positions
    are sized by it. None keeps the stored size; whatever it is, other sizes adapt at run time."""
    stored_positions: bool = False
    """True leaves the position embeddings at their stored size and resizes them in every forward, as Detectron2's ViTDet
    does, instead of once at build time."""
    antialias: bool = True
    """How position embeddings are resized: bicubic with antialiasing as timm does; False as MAE's fine-tuning code,
    Detectron2 and mmsegmentation do. The two differ when enlarging, too (their cubic kernels are not the same)."""
    window: int = 0
    """Side of attention windows in patches; 0 leaves attention as the network has it, global but for ViTDet's files."""
    global_layers: tuple[int, ...] = ()
    """Blocks that keep global attention when `window` is set."""
    rel_pos: bool = False
    """Decomposed relative positions, zero-initialised where the network has none (ViTDet, arXiv 2203.16527)."""
    relative_table: bool = False
    """A relative position table in each block, zero-initialised where the network has none, a copy of the one that its blocks
    share where they do (BEiT, arXiv 2106.08254)."""
    layer_scale: float | None = None
    """Where LayerScale starts that the network does not have; None adds none."""
    keep_prefix: bool = True
    """False drops class and register tokens after the stem, as ViTDet does; windows and relative positions need it."""
    patch_size: int | None = None
    """Side of patches to resample the patch projection's kernel to (bicubic, as 14 to 16 for ViT-H in arXiv 2203.16527);
    None keeps it."""
    drop_path: float = 0.0
    """Largest stochastic depth rate, growing linearly from 0 over the blocks."""
    checkpointing: bool = False
    """True computes each block again in the backward pass instead of keeping what is inside it: less memory, more time."""


class Backbone(nn.Module):
    """A Vision Transformer, whatever code its blocks come from."""

    spec: BackboneSpec

    @abstractmethod
    def forward(self, images: Tensor, layers: tuple[int, ...] = (-1,), *, norm: bool = True) -> tuple[Features, ...]:
        """Run the network once.

        Args:
            images: (B, 3, H, W), normalised with `spec.mean` and `spec.std`; H and W are multiples of the patch size.
            layers: layer i is the output after block i, from 0; negative ones count from the end.
            norm: whether the final norm is applied to each of them.

        Returns:
            One `Features` for each entry of `layers`, in that order.
        """

    @abstractmethod
    def layer_id(self, parameter_name: str) -> int:
        """Depth of a parameter: 0 for the stem (patch, position, class, register), i + 1 for block i, depth + 1 otherwise."""

    def resolve(self, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Turn negative layer numbers into positive ones.

        Raises:
            ValueError: a layer that the backbone does not have.
        """
        depth = self.spec.depth
        found = tuple(layer + depth if layer < 0 else layer for layer in layers)
        if any(not 0 <= layer < depth for layer in found):
            raise ValueError(f"layers {layers} of a backbone with {depth} blocks; use {-depth} to {depth - 1}")
        return found


def normalise(images: Tensor, spec: BackboneSpec) -> Tensor:
    """Turn RGB images (B, 3, H, W) in 0..1 into what the backbone takes."""
    mean = torch.tensor(spec.mean, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    return (images - mean) / std
