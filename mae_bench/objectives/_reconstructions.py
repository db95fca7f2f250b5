"""The picture of what a masked autoencoder has learned, as the figures of arXiv 2111.06377 show it."""

from pathlib import Path
from typing import cast

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional

from backbones.contract import BackboneSpec
from backbones.stem import take
from mae_bench.core.files import write_with
from mae_bench.core.seeding import generator
from mae_bench.objectives._autoencoder import MaskedAutoencoder, patchify, unpatchify
from mae_bench.objectives._parts import to_input

TITLES = ("masked", "reconstruction", "original")
GREY = 128
"""Where a patch is removed, in levels of 0..255."""
LEAST_SIDE = 128
"""Smaller images are enlarged to about this side in pixels."""
GAP = 6
HEADER = 18


def draw(module: nn.Module, images: Tensor, path: Path) -> None:
    """Write one picture of two triplets a row: masked image, reconstruction with the visible patches pasted in, original.

    Args:
        module: the trained autoencoder.
        images: (B, 3, H, W) uint8.
        path: PNG file to write.
    """
    autoencoder = cast(MaskedAutoencoder, module)
    device = next(autoencoder.parameters()).device
    triplets = reconstruct(autoencoder, images.to(device)).cpu()
    sheet = _sheet(triplets)
    write_with(path, lambda file: sheet.save(file, format="PNG"))


@torch.no_grad()
def reconstruct(autoencoder: MaskedAutoencoder, images: Tensor) -> Tensor:
    """Triplets (B, 3, 3, H, W) uint8 in the order of `TITLES`, always under the same masks."""
    training = autoencoder.training
    autoencoder.eval()
    spec, grid = autoencoder.backbone.spec, autoencoder.grid
    noise = torch.rand(len(images), grid[0] * grid[1], generator=generator("reconstructions")).to(images.device)
    pixels = to_input(images, spec)
    predicted = autoencoder.predict(pixels, noise)
    autoencoder.train(training)
    patches = patchify(pixels, spec.patch_size)
    painted = autoencoder.target.painted(predicted.values.float(), take(patches, predicted.ids))
    where = predicted.ids.unsqueeze(-1).expand_as(painted)
    rebuilt = to_bytes(unpatchify(patches.scatter(1, where, painted), spec.patch_size, grid), spec)
    removed = predicted.mask.unflatten(1, grid).unsqueeze(1)
    removed = functional.interpolate(removed, scale_factor=spec.patch_size, mode="nearest").bool()
    return torch.stack([images.masked_fill(removed, GREY), torch.where(removed, rebuilt, images), images], dim=1)


def to_bytes(pixels: Tensor, spec: BackboneSpec) -> Tensor:
    """Undo the normalisation of the backbone's input; uint8 again."""
    mean, std = (torch.tensor(value, device=pixels.device).view(3, 1, 1) for value in (spec.mean, spec.std))
    return ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _sheet(triplets: Tensor) -> Image.Image:
    height, width = triplets.shape[-2:]
    scale = max(1, round(LEAST_SIDE / max(height, width)))
    height, width = height * scale, width * scale
    columns = 2 if len(triplets) > 1 else 1
    block = 3 * (width + GAP) + GAP
    rows = -(-len(triplets) // columns)
    sheet = Image.new("RGB", (columns * block, HEADER + rows * (height + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, triplet in enumerate(triplets):
        row, column = divmod(number, columns)
        for place, (title, tile) in enumerate(zip(TITLES, triplet, strict=True)):
            left = column * block + place * (width + GAP)
            if row == 0:
                pen.text((left + width // 2, HEADER // 2), title, fill="black", anchor="mm")
            picture = Image.fromarray(tile.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, HEADER + row * (height + GAP)))
    return sheet
