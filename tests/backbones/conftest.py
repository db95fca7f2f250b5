"""Small networks and files that hold them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backbones.arch import VitArch
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


def shaken(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add noise to every tensor, so that biases, norms and LayerScale matter to the output."""
    generator = torch.Generator().manual_seed(5)
    return {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}
