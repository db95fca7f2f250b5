"""Small networks that are written for other programs, and how their features are compared."""

import torch

from backbones.source import Source
from backbones.zoo import vit

PLAIN = {"embed_dim": 128, "num_heads": 2, "mlp_dim": 256}
BEIT = {**PLAIN, "relative": "table", "positions": False, "layer_scale": True}
SHARED = {**BEIT, "relative": "shared_table"}
DINOV2 = {**PLAIN, "layer_scale": True}
REGISTERS = {**DINOV2, "num_registers": 3, "prefix_positions": False}
GATED = {**DINOV2, "mlp": "swiglu", "mlp_dim": 2 * 344}
CLIP = {**PLAIN, "pre_norm": True, "patch_bias": False, "mlp": "quick_gelu", "norm_eps": 1e-5}
DEIT = {**PLAIN, "num_registers": 1}
SIGLIP = {**PLAIN, "class_token": False, "mlp": "gelu_tanh"}
VITDET = {**PLAIN, "class_token": False, "relative": "decomposed", "window": 2, "global_layers": (1,), "final_norm": False}
SCALED = 1e-5
"""Largest difference of features that are of the size of one."""


def pictures(height=32, width=32):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def ours(source: Source, *, norm=True, size=(32, 32)):
    with torch.no_grad():
        return source.build().eval()(pictures(*size), norm=norm)[0]


def same(found, expected):
    scale = expected.abs().max()
    assert found.shape == expected.shape and scale > 0.1
    assert (found - expected).abs().max() <= SCALED * max(scale, 1)


def weights(opened: Source):
    return vit.weights_of(opened.build())
