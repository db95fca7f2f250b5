"""Checkpoints written by other libraries, compared with those libraries' own code, block by block."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from backbones.origins import timm as from_timm
from backbones.source import open_source
from backbones.verification import TOLERANCE, compare, sizes
from mae_bench.ckpt import origin_of

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 3, "num_heads": 2, "num_classes": 0}
HF: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    "image_size": 32,
    "patch_size": 8,
}


def stirred(net: nn.Module) -> nn.Module:
    """Every parameter away from the values it starts with, so that each matters."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def check(text, *, what, rectangle=True):
    """All blocks agree, at the file's own size and at a rectangle."""
    source = open_source(str(text))
    network = origin_of(source).network(source)
    rows = list(compare(source, network))
    assert network.what == what and {row.size for row in rows} == set(sizes(source, network))
    assert len(rows) == source.spec.depth * (2 if rectangle else 1)
    assert all(row.same and row.scale > 0.1 for row in rows), max(row.relative for row in rows)
    return source


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5},
        {"qk_norm": True, "qkv_bias": False, "class_token": False},
    ],
    ids=str,
)
def test_timms_vit(saved, options):
    if not options.get("class_token", True):
        options = {**options, "global_pool": "avg"}
    check(saved(stirred(VisionTransformer(**SMALL, **options)).state_dict()), what="timm's VisionTransformer")


def test_a_published_size_is_made_by_timm_alone(saved):
    """Heads, widths and epsilon are timm's; a wrong number of heads is found."""
    import timm

    path = saved({"model": stirred(timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=12)).state_dict()})
    check(path, what="timm's VisionTransformer")
    source = open_source(f"{path}#num_heads=4")
    rows = list(compare(source, from_timm.network(source)))
    assert not any(row.same for row in rows) and max(row.relative for row in rows) > 100 * TOLERANCE


@pytest.mark.parametrize("shared", [True, False])
def test_timms_beit(saved, shared):
    from timm.models.beit import Beit

    tables = {"use_rel_pos_bias": not shared, "use_shared_rel_pos_bias": shared, "use_abs_pos_emb": False, "init_values": 0.1}
    net = stirred(Beit(**SMALL, **tables, global_pool="token"))
    check(saved({"model": net.state_dict()}), what="timm's Beit", rectangle=False)


def test_timms_eva(saved):
    """With rotary positions and a gated MLP, as EVA-02 has them."""
    from timm.models.eva import Eva

    net = Eva(**SMALL, use_rot_pos_emb=True, swiglu_mlp=True, qkv_fused=False, mlp_ratio=8 / 3, global_pool="token")
    check(saved(stirred(net).state_dict()), what="timm's Eva")


@pytest.mark.parametrize(
    ("name", "options", "rectangle"),
    [
        ("ViT", {}, True),
        ("ViTMAE", {}, False),
        ("Dinov2", {"drop": "intermediate_size", "mlp_ratio": 2}, True),
        ("Dinov2WithRegisters", {"drop": "intermediate_size", "mlp_ratio": 2}, True),
        ("Beit", {"use_relative_position_bias": True, "use_mean_pooling": False}, False),
        ("CLIPVision", {}, True),
    ],
    ids=str,
)
def test_transformers(tmp_path, name, options, rectangle):
    transformers = pytest.importorskip("transformers")
    facts = {key: value for key, value in {**HF, **options}.items() if key not in ("drop", options.get("drop"))}
    net = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**facts))
    positions = {part: tensor.clone() for part, tensor in net.state_dict().items() if name == "ViTMAE" and "position" in part}
    stirred(net).load_state_dict(positions, strict=False)
    net.save_pretrained(tmp_path / "model")
    check(tmp_path / "model", what=f"transformers' {name}Model", rectangle=rectangle)


@pytest.mark.edge
@pytest.mark.parametrize("plain", [False, True])
def test_detectron2(tmp_path, plain):
    modeling = pytest.importorskip("detectron2.modeling.backbone.vit")
    windows = {} if plain else {"use_rel_pos": True, "window_size": 3, "window_block_indexes": (0, 2)}
    net = modeling.ViT(
        **{name: SMALL[name] for name in ("patch_size", "embed_dim", "depth", "num_heads")},
        img_size=64,
        pretrain_img_size=32,
        mlp_ratio=2.0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        **windows,
    )
    state = {f"backbone.net.{name}": tensor for name, tensor in stirred(net).state_dict().items()}
    path = tmp_path / "model.pth"
    torch.save({"model": state}, path)
    check(path, what="Detectron2's ViT")


@pytest.mark.edge
@pytest.mark.parametrize("kind", ["MAE", "BEiT", "VisionTransformer"])
def test_mmseg(tmp_path, kind):
    pytest.importorskip("mmseg")
    from mmseg.models import backbones

    facts = {"img_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 2, "mlp_ratio": 2, "final_norm": True}
    norm = {"type": "LN", "eps": 1e-6}
    bias = {"patch_bias": True} if kind == "VisionTransformer" else {}
    net = getattr(backbones, kind)(embed_dims=128, norm_cfg=norm, **facts, **bias)
    stirred(net)
    state = {f"backbone.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    check(tmp_path / "model.pth", what=f"mmsegmentation's {kind}", rectangle=kind == "VisionTransformer")


def test_random_weights_are_compared_too():
    check("random:vit_demo_patch8", what="timm's VisionTransformer")


def test_a_wrong_epsilon_is_found(saved):
    path = saved(stirred(VisionTransformer(**SMALL)).state_dict())
    right = open_source(path)
    network = from_timm.network(right)
    wrong = open_source(f"{path}#norm_eps=0.01")
    assert any(not row.same for row in compare(wrong, network))


def test_tokens_of_another_number_are_never_the_same(saved):
    source = open_source(saved(stirred(VisionTransformer(**SMALL)).state_dict()))
    network = from_timm.network(source)
    cut = type(network)(network.what, lambda images: [tokens[:, 1:] for tokens in network.blocks(images)])
    assert all(row.difference == float("inf") and not row.same for row in compare(source, cut))


def test_a_config_that_is_not_there_is_asked_for(tmp_path):
    transformers = pytest.importorskip("transformers")
    stirred(transformers.ViTModel(transformers.ViTConfig(**HF))).save_pretrained(tmp_path)  # pyright: ignore
    source = open_source(str(Path(tmp_path / "model.safetensors").rename(tmp_path / "bare.safetensors")))
    from mae_bench.core.errors import InputError

    with pytest.raises(InputError, match=r"needs the config\.json"):
        origin_of(source).network(source)
