"""Small networks and files that hold them."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.arch import VitArch
from backbones.positions import sincos_2d
from backbones.save import save_backbone
from backbones.source import Source, open_source
from backbones.vit import TimmViT, initial_weights
from backbones.zoo import vit

TINY = VitArch(embed_dim=24, depth=3, num_heads=2, patch_size=8, mlp_dim=40, image_size=(32, 32))


@pytest.fixture
def tiny_arch() -> VitArch:
    return TINY


@pytest.fixture
def make() -> Callable[..., TimmViT]:
    """Build a small backbone: `make(dense, embed_dim=32, ...)`; no weight of it is at a special value such as 0 or 1."""

    def build(dense=None, seed: int = 0, **facts) -> TimmViT:
        arch = VitArch(**{**TINY.model_dump(), **facts})
        return vit.assemble(arch, vit.spec_of(arch), shaken(initial_weights(arch, seed)), dense).eval()

    return build


@pytest.fixture
def timm_state() -> dict[str, Tensor]:
    """Tensors of a small network as timm and MAE name them; its heads are the assumed ones."""
    arch = VitArch(**{**TINY.model_dump(), "embed_dim": 128})
    return shaken(initial_weights(arch, seed=1))


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """Write something with torch.save and give the path as text."""

    def save(content: object, name: str = "weights.pth", **options) -> str:
        torch.save(content, tmp_path / name, **options)
        return str(tmp_path / name)

    return save


@pytest.fixture
def mae_state(timm_state):
    """An official MAE file's encoder: fixed positions, a class token row of zeros."""
    return {**timm_state, "pos_embed": sincos_2d(128, (4, 4), num_prefix=1)}


@pytest.fixture
def decoder():
    names = ("mask_token", "decoder_embed.weight", "decoder_pos_embed", "decoder_blocks.0.norm1.weight", "decoder_pred.bias")
    return {name: torch.ones(1, 1, 4) for name in names}


@pytest.fixture
def pickled(tmp_path):
    """Write bytes, or the pickle of something."""

    def write(content: Any, protocol: int = 4) -> Path:
        path = tmp_path / "model.pkl"
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
        return path

    return write


@pytest.fixture
def source(tmp_path, make):
    """A small network with the given facts, as a source."""

    def build(zero_key_bias=False, **facts) -> Source:
        backbone = make(**facts)
        if zero_key_bias:
            for block in backbone.net.blocks:
                width = facts["embed_dim"]
                block.attn.qkv.bias.data[width : 2 * width] = 0
        save_backbone(tmp_path / "network" / "model.safetensors", backbone, method="mae", pretrain_data="scenes")
        return open_source(str(tmp_path / "network"))

    return build


def shaken(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add noise to every tensor, so that biases, norms and LayerScale matter to the output."""
    generator = torch.Generator().manual_seed(5)
    return {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}
