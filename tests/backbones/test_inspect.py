"""What is said of weights: fresh ones, trained ones, and files with something wrong in them."""

import math

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from backbones.arch import VitArch
from backbones.inspection import inspect, numbers
from backbones.vit import initial_weights
from tests.backbones.conftest import TINY, shaken

WIDE = VitArch(**{**TINY.model_dump(), "embed_dim": 64, "depth": 6})


@pytest.fixture
def trained():
    """Weights without a special value, as after some steps."""
    return shaken(initial_weights(WIDE, 0))


def test_numbers_are_those_of_numpy_and_scipy():
    from scipy import stats

    tensor = torch.randn(40, 50, generator=torch.Generator().manual_seed(0)) ** 3 + 2
    found = numbers("x", tensor)
    flat = tensor.numpy().ravel()
    assert found.count == 2000 and found.lowest == flat.min() and found.highest == flat.max()
    assert math.isclose(found.mean, flat.mean(), rel_tol=1e-5) and math.isclose(found.std, flat.std(), rel_tol=1e-5)
    assert math.isclose(found.kurtosis, stats.kurtosis(flat), rel_tol=1e-4)


@pytest.mark.parametrize("scheme", ["", "jax", "moco"])
def test_a_network_that_was_never_trained_is_told(scheme):
    """With each of timm's initialisations."""
    net = VisionTransformer(32, 8, num_classes=0, embed_dim=64, depth=4, num_heads=2, weight_init=scheme)
    state = net.state_dict()
    found = inspect(state)
    assert found.verdict == "untrained" and all(block.fresh for block in found.blocks)
    assert found.parameters == sum(tensor.numel() for tensor in state.values())


def test_initial_weights_of_the_suite_are_untrained_and_one_step_changes_that():
    state = initial_weights(WIDE, 0)
    assert inspect(state).verdict == "untrained"
    state = {name: tensor + 1e-6 * torch.randn_like(tensor) for name, tensor in state.items()}
    assert inspect(state).verdict == "trained"


def test_trained_weights_have_nothing_odd(trained):
    found = inspect(trained)
    assert found.verdict == "trained" and found.findings == () and len(found.blocks) == 6
    assert all(0.05 < block.qkv_std < 0.3 and abs(block.norm_weight - 1) < 0.2 and block.bias > 0 for block in found.blocks)
    assert found.blocks[0].layer_scale is None


def test_layer_scale_is_shown():
    found = inspect(initial_weights(WIDE.override({"layer_scale": True}), 0))
    assert all(block.layer_scale == pytest.approx(1e-5) for block in found.blocks)


def test_blocks_that_nobody_loaded_are_told(trained):
    fresh = initial_weights(WIDE, 1)
    trained |= {name: tensor for name, tensor in fresh.items() if name.startswith(("blocks.3.", "blocks.4.", "blocks.1."))}
    found = inspect(trained)
    assert found.verdict == "partly untrained" and "blocks 1, 3-4 have" in found.findings[0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state["blocks.2.attn.qkv.weight"].zero_(), r"blocks\.2\.attn\.qkv\.weight holds 0 everywhere"),
        (lambda state: state["patch_embed.proj.weight"].fill_(0.5), r"patch_embed\.proj\.weight holds 0\.5 everywhere"),
        (lambda state: state["pos_embed"].zero_(), "pos_embed holds 0 everywhere"),
        (lambda state: state["blocks.5.mlp.fc1.weight"].mul_(1000), r"blocks\.5\.mlp\.fc1\.weight has a standard deviation"),
        (lambda state: state["blocks.0.mlp.fc2.weight"].mul_(1e-4), r"blocks\.0\.mlp\.fc2\.weight has a standard deviation"),
        (
            lambda state: [
                tensor.copy_(state[name.replace("blocks.4.", "blocks.2.")])
                for name, tensor in state.items()
                if name.startswith("blocks.4.")
            ],
            "block 4 is a copy of block 2",
        ),
    ],
)
def test_broken_weights_are_named(trained, change, match):
    import re

    change(trained)
    found = inspect(trained)
    assert found.verdict == "broken" and any(re.search(match, line) for line in found.findings), found.findings
