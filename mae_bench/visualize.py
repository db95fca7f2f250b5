"""Reconstructions by a masked autoencoder that is already trained: one of ours, or a file of the release with its decoder."""

from pathlib import Path
from typing import Any, cast

import yaml
from torch import Tensor

from backbones import reading
from backbones.contract import DenseOptions
from backbones.source import open_source
from backbones.vit import TimmViT
from mae_bench.core import checkpoint
from mae_bench.core.errors import ConfigError, InputError
from mae_bench.objectives import mae
from mae_bench.objectives._autoencoder import MaskedAutoencoder
from mae_bench.objectives._images import held_out
from mae_bench.objectives._reconstructions import draw
from mae_bench.pretrain_record import SETTINGS
from tasks.data import LabelledSplit
from tasks.handle import open_data

DECODER_HEADS = 16
"""Of the released decoders, which do not show it in their shapes (models_mae.py: width 512, 8 blocks, 16 heads)."""
NAMES = {
    "mask_token": "mask_token",
    "decoder_pos_embed": "positions",
    "decoder_embed.": "embed.",
    "decoder_blocks.": "blocks.",
    "decoder_norm.": "norm.",
    "decoder_pred.": "head.",
}
"""Names of the release, and ours within the decoder."""

PREFIX = "module."
"""Of the weights' names in the state of a moving average (torch's `AveragedModel`)."""


def draw_reconstructions(source: str, data: str, out: Path, *, count: int, pixels: bool = False) -> Path:
    """Draw held-out images masked, reconstructed and as they are.

    Args:
        source: folder that `pretrain mae` left, or an MAE file with its decoder.
        data: `folder=PATH`; images of val are taken.
        out: PNG file to write.
        count: how many images.
        pixels: the file predicts pixels that are not normalised by patch; a folder says so itself.

    Raises:
        ConfigError: `pixels` for a folder.
        InputError: a source without a decoder, or data that cannot be read.
    """
    folder = Path(source)
    if folder.is_dir() and pixels:
        raise ConfigError(f"--pixels is for files; {folder} says itself what it predicts")
    autoencoder = _of_run(folder) if folder.is_dir() else _of_file(source, pixels)
    images = held_out(cast(LabelledSplit, open_data(data).split("val")), count, autoencoder.backbone.spec.image_size)
    draw(autoencoder, images, out)
    return out


def _of_run(folder: Path) -> MaskedAutoencoder:
    """The autoencoder a pretraining ended with, decoder and all."""
    try:
        facts = yaml.safe_load((folder / SETTINGS).read_text())
        config, arch = mae.Config(**facts["settings"]), facts["arch"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder} is not what `pretrain mae` leaves; give that folder, or an MAE file with its decoder"
        ) from error
    found = checkpoint.newest(folder / "ckpt")
    if found is None:
        raise InputError(f"{folder / 'ckpt'} holds no saved state, and only that has the decoder")
    # Where there is a moving average of the weights, that is what was kept.
    average = cast(dict[str, Tensor], found["average"])
    kept = {name.removeprefix(PREFIX): tensor for name, tensor in average.items() if name.startswith(PREFIX)}
    state = kept or cast(dict[str, Tensor], found["model"])
    autoencoder = _build(f"random:{arch}", config)
    autoencoder.load_state_dict(state)
    return autoencoder


def _of_file(source: str, pixels: bool) -> MaskedAutoencoder:
    """The autoencoder of a file of the release."""
    state = reading.read(Path(source)).state
    decoder = {_ours(name): tensor for name, tensor in state.items() if _ours(name)}
    if "embed.weight" not in decoder:
        raise InputError(f"{source} has no decoder; give a file of the release that has (mae_visualize_*, *_full) or a folder")
    dim = decoder["embed.weight"].shape[0]
    depth = len({name.split(".")[1] for name in decoder if name.startswith("blocks.")})
    config = mae.RECIPES["paper"].model_copy(
        update={"decoder_dim": dim, "decoder_depth": depth, "decoder_heads": DECODER_HEADS, "norm_pix_loss": not pixels}
    )
    autoencoder = _build(source, config, fitted=True)
    autoencoder.decoder.load_state_dict(decoder)
    return autoencoder


def _build(source: str, config: mae.Config, *, fitted: bool = False) -> MaskedAutoencoder:
    """An autoencoder around a source; `fitted` keeps the source's own weights."""
    size: Any = None if config.image_size is None else (config.image_size, config.image_size)
    opened = open_source(source)
    backbone = opened.build(DenseOptions(image_size=size))
    if not isinstance(backbone, TimmViT):
        raise InputError(f"{source} is a {backbone.spec.name}, not the plain ViT of an MAE")
    autoencoder = MaskedAutoencoder(backbone, config)
    if fitted:
        # Making an autoencoder initialises its backbone.
        backbone.load_state_dict(opened.build().state_dict())
    return autoencoder.eval()


def _ours(name: str) -> str:
    return next((ours + name.removeprefix(theirs) for theirs, ours in NAMES.items() if name.startswith(theirs)), "")
