"""What is written for Detectron2 and mmsegmentation loads in their own code, and gives the same features."""

from functools import partial

import pytest
import torch
from torch import nn

from backbones.contract import DenseOptions
from backbones.export import export
from backbones.source import open_source
from tests.backbones.export_samples import BEIT, DINOV2, PLAIN, SHARED, VITDET, ours, pictures, same


@pytest.mark.edge
@pytest.mark.parametrize("ending", [".pkl", ".pth"])
@pytest.mark.parametrize("facts", [PLAIN, VITDET], ids=str)
def test_detectron2s_own_checkpointer_and_vit_take_the_file(source, tmp_path, facts, ending):
    modeling = pytest.importorskip("detectron2.modeling.backbone.vit")
    from detectron2.checkpoint import DetectionCheckpointer

    opened = source(**facts)
    layout = export(opened, tmp_path / f"out{ending}", "detectron2")
    windowed = facts is VITDET
    net = modeling.ViT(
        img_size=32,
        patch_size=8,
        embed_dim=128,
        depth=3,
        num_heads=2,
        mlp_ratio=2.0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=windowed,
        window_size=2 if windowed else 0,
        window_block_indexes=(0, 2) if windowed else (),
        pretrain_img_size=32,
        pretrain_use_cls_token=not windowed,
    )
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.net = net
    DetectionCheckpointer(model).load(str(tmp_path / f"out{ending}"))
    assert model.state_dict().keys() == layout.tensors.keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in layout.tensors.items())
    assert ("cls_token" in " ".join(layout.notes)) == (facts is PLAIN)
    options = DenseOptions(keep_prefix=False, stored_positions=True, antialias=False)
    back = open_source(f"{tmp_path / f'out{ending}'}#num_heads=2")
    with torch.no_grad():
        expected = net.eval()(pictures(40, 24))["last_feat"]
        for each in (opened, back):
            same(expected, each.build(options).eval()(pictures(40, 24), norm=False)[0].map)


def mmseg_backbone(kind, **more):
    pytest.importorskip("mmseg")
    from mmseg.models import backbones

    facts = {"img_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 2, "mlp_ratio": 2, "final_norm": True, **more}
    return getattr(backbones, kind)(embed_dims=128, norm_cfg={"type": "LN", "eps": 1e-6}, **facts)


def inside(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    assert all(name.startswith("backbone.") for name in state)
    return {name.removeprefix("backbone."): tensor for name, tensor in state.items()}


@pytest.mark.edge
@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (PLAIN, "MAE"),
        ({**DINOV2, "relative": "table"}, "MAE"),
        (BEIT, "BEiT"),
        (SHARED, "BEiT"),
        ({**BEIT, "qkv_bias": False, "layer_scale": False}, "BEiT"),
    ],
    ids=str,
)
def test_mmsegs_mae_and_beit_take_the_file(source, tmp_path, facts, kind):
    qv_bias = {"qv_bias": facts.get("qkv_bias", True)} if kind == "BEiT" else {}
    net = mmseg_backbone(kind, **qv_bias)
    opened = source(zero_key_bias=kind == "BEiT" and qv_bias["qv_bias"], **facts)
    layout = export(opened, tmp_path / "out.pth", "mmseg")
    assert f"type='{kind}'" in layout.how
    told = net.load_state_dict(inside(tmp_path / "out.pth"), strict=False)
    made_there = "relative_position_index" if "relative" in facts else ("relative_position_index", "bias_table")
    assert not told.unexpected_keys and all(name.endswith(made_there) for name in told.missing_keys)
    net.eval()  # gives nothing back in mmseg
    with torch.no_grad():
        same(net(pictures())[0], ours(opened).map)


@pytest.mark.edge
@pytest.mark.parametrize("facts", [PLAIN, {**PLAIN, "pre_norm": True, "patch_bias": False}], ids=str)
def test_mmsegs_vit_takes_the_file_strictly(source, tmp_path, facts):
    norm = {"pre_norm": "pre_norm" in facts, "patch_bias": "pre_norm" not in facts}
    net = mmseg_backbone("VisionTransformer", **norm)
    opened = source(**facts)
    export(opened, tmp_path / "out.pth", "mmseg_vit")
    net.load_state_dict(inside(tmp_path / "out.pth"), strict=True)
    net.eval()  # gives nothing back in mmseg
    with torch.no_grad():
        same(net(pictures())[0], ours(opened).map)
