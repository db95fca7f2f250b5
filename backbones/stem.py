"""What comes before the blocks of timm's networks: patches, positions at any rectangle, prefix tokens in front.

Letters in shape comments: B batch, N patches, P prefix tokens, C width, H W pixels, h w grid.
"""

from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from backbones.arch import Arch
from backbones.contract import Backbone, DenseOptions
from backbones.positions import resample

NAMES = ("net.patch_embed.", "net.pos_embed", "net.cls_token", "net.reg_token", "net.norm_pre.", "net.rel_pos_bias.")
"""Beginnings of the names of parameters that have depth 0."""


A = TypeVar("A", bound=Arch)


class Stem(Backbone, Generic[A]):
    """A backbone around a network `net` that has timm's names in its stem."""

    arch: A
    options: DenseOptions
    net: Any

    @property
    def positions(self) -> nn.Parameter:
        """The stored position embeddings, (1, rows, C)."""
        return cast(nn.Parameter, self.net.pos_embed)

    def layer_id(self, parameter_name: str) -> int:
        """Depth of a parameter, named as in `named_parameters()`; see `Backbone.layer_id`."""
        if parameter_name.startswith(NAMES):
            return 0
        if parameter_name.startswith("net.blocks."):
            return int(parameter_name.split(".")[2]) + 1
        return self.spec.depth + 1

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
        if not self.arch.positions:
            return patches.flatten(1, 2), grid
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
        if rows and self.arch.positions:
            tokens = tokens + self.positions[:, :rows]
        return torch.cat([tokens.expand(patches.shape[0], -1, -1), patches], dim=1)
