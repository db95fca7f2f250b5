"""What comes before the blocks of timm's networks: patches, positions at any rectangle, prefix tokens in front.

Letters in shape comments: B batch, N patches, P prefix tokens, C width, H W pixels, h w grid.
"""

from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

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
        grid = self._grid(images)
        patches = self.net.patch_embed(images).flatten(1, 2)
        positions = self._places(grid)
        return patches if positions is None else patches + positions, grid

    def _some_patches(self, images: Tensor, ids: Tensor) -> Tensor:
        """The tokens (B, K, C) of the patches numbered `ids` (B, K), with their positions; no others are projected."""
        grid, embed, patch = self._grid(images), self.net.patch_embed, self.spec.patch_size
        # (B, h*w, 3*p*p), as the projection, a convolution whose steps are as long as it is wide, lies in memory.
        pixels = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2)
        patches = embed.norm(functional.linear(take(pixels, ids), embed.proj.weight.flatten(1), embed.proj.bias))
        positions = self._places(grid)
        return patches if positions is None else patches + take(positions.expand(len(ids), -1, -1), ids)

    def _grid(self, images: Tensor) -> tuple[int, int]:
        """Patches below and beside each other."""
        size, patch = (images.shape[-2], images.shape[-1]), self.spec.patch_size
        if size[0] % patch or size[1] % patch:
            whole = " x ".join(str(max(side // patch, 1) * patch) for side in size)
            raise ValueError(
                f"{size[0]} x {size[1]} pixels are not whole patches of {patch}; resize or pad the image, to {whole} say"
            )
        return size[0] // patch, size[1] // patch

    def _places(self, grid: tuple[int, int]) -> Tensor | None:
        """Position embeddings of the patches of a grid, (1, h*w, C), where the network has some."""
        if not self.arch.positions:
            return None
        rows = self.arch.num_prefix_rows
        return resample(self.positions, self.arch.grid, grid, num_prefix=rows, antialias=self.options.antialias)[:, rows:]

    def _with_prefix(self, patches: Tensor) -> Tensor:
        """Prefix tokens, with their positions where they have some, in front of the patch tokens: (B, P + N, C)."""
        net, rows = self.net, self.arch.num_prefix_rows
        prefix: list[Tensor] = [token for token in (net.cls_token, net.reg_token) if token is not None]
        if not prefix:
            # The projection leaves them channel by channel, and every sum of the blocks would keep it so.
            return patches.contiguous()
        tokens = torch.cat(prefix, dim=1)
        if rows and self.arch.positions:
            tokens = tokens + self.positions[:, :rows]
        return torch.cat([tokens.expand(patches.shape[0], -1, -1), patches], dim=1)


def take(tokens: Tensor, ids: Tensor) -> Tensor:
    """Some tokens (B, K, C) of each image's (B, N, C), in the order of `ids` (B, K)."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
