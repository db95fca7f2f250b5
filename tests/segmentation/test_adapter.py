"""The backbone inside mmseg: shapes at any size, the parameters' rates, and the same features as mmseg's own MAE backbone."""

import pytest
import torch

from backbones.layers import layer_ids
from backbones.positions import resample
from mae_bench.core.errors import ConfigError
from mae_bench.core.optim import OptimConfig, parameter_groups
from tests.segmentation.conftest import tiny_backbone

pytestmark = pytest.mark.edge
to_mmseg = pytest.importorskip("backbones.adapters.to_mmseg")
model = pytest.importorskip("tasks.edges.segmentation_model")


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(12, (3, 5, 7, 11)), (24, (7, 11, 15, 23)), (6, (1, 2, 3, 5)), (32, (10, 15, 20, 31)), (2, (0, 0, 0, 1)), (1, (0, 0, 0, 0))],
)
def test_default_layers(depth, layers):
    assert to_mmseg.default_layers(depth) == layers


@pytest.mark.parametrize("patch", [8, 14, 16])
@pytest.mark.parametrize("size", [(64, 64), (65, 100), (33, 48)])
def test_maps_cover_any_size(patch, size):
    adapter = to_mmseg.MaeBenchBackbone(tiny_backbone(patch=patch))
    maps = adapter(torch.randn(2, 3, *size))
    assert [tuple(one.shape) for one in maps] == [(2, 16, -(-size[0] // patch), -(-size[1] // patch))] * 4


def test_maps_are_block_outputs_without_norm():
    backbone = tiny_backbone(depth=6)
    images = torch.randn(1, 3, 32, 48)
    maps = to_mmseg.MaeBenchBackbone(backbone)(images)
    expected = backbone(images, (1, 2, 3, 5), norm=False)
    assert all(torch.equal(one, features.map) for one, features in zip(maps, expected, strict=True))


def test_padding_does_not_reach_beyond_its_patches():
    """An image that ends inside a patch is the padded image, which is what mmseg's own patch embedding makes of it."""
    adapter = to_mmseg.MaeBenchBackbone(tiny_backbone())
    images = torch.randn(1, 3, 30, 41)
    padded = torch.nn.functional.pad(images, (0, 7, 0, 2))
    assert all(torch.equal(one, other) for one, other in zip(adapter(images), adapter(padded), strict=True))


@pytest.mark.parametrize(
    ("patch", "strides"),
    [(8, (4, 8, 16, 32)), (16, (4, 8, 16, 32)), (14, (3.5, 7, 14, 28)), (32, (8, 16, 32, 64)), (4, (2, 4, 8, 16))],
)
def test_strides_of_the_pyramid(patch, strides):
    assert tuple(patch / factor for factor in to_mmseg.rescales(patch)) == strides


def test_blocks_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"out_layers: layers \(1, 2, 3, 4\) of a backbone with 4 blocks"):
        to_mmseg.MaeBenchBackbone(tiny_backbone(depth=4), out_layers=(1, 2, 3, 4))


def test_backbone_or_source_and_not_both():
    with pytest.raises(ConfigError, match="either backbone or source"):
        to_mmseg.MaeBenchBackbone()


def test_a_source_is_read_by_the_suite():
    from mmseg.registry import MODELS

    built = MODELS.build({"type": "MaeBenchBackbone", "source": "random:vit_demo_patch8", "image_size": (128, 128), "seed": 3})
    assert built.backbone.spec.image_size == (128, 128)


@pytest.fixture
def segmenter(settings):
    return model.build_segmenter(tiny_backbone(), settings, 3)


def test_what_cannot_learn_is_frozen(segmenter):
    frozen = {name for name, parameter in segmenter.named_parameters() if not parameter.requires_grad}
    assert frozen == {"segmentor.backbone.backbone.net.norm.weight", "segmentor.backbone.backbone.net.norm.bias"}


def test_everything_else_learns(segmenter, settings):
    batch = {"inputs": [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)] * 2, "data_samples": [labelled(), labelled()]}
    torch.stack(list(segmenter(batch).values())).sum().backward()
    idle = [name for name, parameter in segmenter.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not idle


def labelled():
    from mmengine.structures import PixelData

    from tasks.edges.segmentation_mmseg import SegDataSample

    return SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 32, 32))), metainfo={"img_shape": (32, 32)})


def test_rate_of_every_parameter_follows_its_depth(segmenter):
    layer_id, depth = layer_ids(segmenter)
    groups = parameter_groups(segmenter, OptimConfig(lr=1.0, weight_decay=0.1, layer_decay=0.5), layer_id=layer_id, depth=depth)
    rates = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert sum(len(group["names"]) for group in groups) == len(rates)
    assert set(rates) == {name for name, parameter in segmenter.named_parameters() if parameter.requires_grad}
    inside = "segmentor.backbone.backbone.net."
    for name, rate in rates.items():
        rest = name.removeprefix(inside)
        if rest == name:
            expected = 1.0
        else:
            expected = 0.5 ** (4 - int(rest.split(".")[1])) if rest.startswith("blocks.") else 0.5**5
        assert rate == expected, name
    assert rates[f"{inside}blocks.3.mlp.fc2.weight"] == 0.5
    assert rates[f"{inside}pos_embed"] == rates[f"{inside}patch_embed.proj.weight"] == 0.5**5
    assert rates["segmentor.neck.upsample_2x.0.weight"] == rates["segmentor.decode_head.conv_seg.weight"] == 1.0


def test_layer_decay_in_a_training_of_mmengine(segmenter):
    from mmengine.optim import build_optim_wrapper

    wrapper = build_optim_wrapper(
        segmenter,
        {
            "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.1},
            "constructor": "mmseg.MaeBenchLayerDecay",
            "paramwise_cfg": {"layer_decay": 0.5},
        },
    )
    found = {id(group["params"][0]): (group["lr"], group["weight_decay"]) for group in wrapper.optimizer.param_groups}
    layer_id, depth = layer_ids(segmenter)
    for name, parameter in segmenter.named_parameters():
        if parameter.requires_grad:
            assert found[id(parameter)] == (0.5 ** (depth + 1 - layer_id(name)), 0.1 if parameter.ndim > 1 else 0.0), name


def test_pretrained_weights_survive_the_building(settings):
    backbone, untouched = tiny_backbone(seed=5), tiny_backbone(seed=5)
    model.build_segmenter(backbone, settings, 3)
    assert all(torch.equal(one, other) for one, other in zip(backbone.parameters(), untouched.parameters(), strict=True))


def test_features_equal_those_of_mmsegs_mae():
    """With relative position tables at zero and LayerScale at one, as mmseg's recipe begins, both compute the same."""
    from mmseg.models.backbones import MAE

    ours = tiny_backbone(patch=16, depth=12)
    shape = {"img_size": (64, 64), "patch_size": 16, "embed_dims": 16, "num_layers": 12, "num_heads": 2, "mlp_ratio": 2}
    theirs = MAE(**shape, out_indices=[3, 5, 7, 11], init_values=1.0, norm_cfg={"type": "LN", "eps": 1e-6})  # type: ignore
    state = {theirs_name(name): tensor for name, tensor in ours.net.state_dict().items() if not name.startswith("norm.")}
    loaded = theirs.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys
    assert all("relative_position" in name or "gamma_" in name for name in loaded.missing_keys)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = to_mmseg.MaeBenchBackbone(ours).eval()(images)
        theirs.eval()
        expected = theirs(images)
    for one, other in zip(maps, expected, strict=True):
        assert one.abs().max() > 0.1
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def theirs_name(name: str) -> str:
    """mmseg's name of a timm tensor."""
    for ours, theirs in (
        ("patch_embed.proj", "patch_embed.projection"),
        ("blocks.", "layers."),
        (".norm1", ".ln1"),
        (".norm2", ".ln2"),
        ("mlp.fc1", "ffn.layers.0.0"),
        ("mlp.fc2", "ffn.layers.1"),
    ):
        name = name.replace(ours, theirs)
    return name


def test_positions_are_resized_as_mmseg_does():
    """From 14 x 14 patches, as pretraining has them, to 32 x 32: bicubic without antialiasing."""
    from mmseg.models.backbones import MAE

    backbone = tiny_backbone(patch=16, options=to_mmseg.dense_options((512, 512), 0.0, relative_table=True, layer_scale=1.0))
    assert backbone.positions.shape == (1, 1 + 32 * 32, 16)
    stored = torch.randn(1, 1 + 14 * 14, 16)
    shape = {"img_size": (512, 512), "patch_size": 16, "embed_dims": 16, "num_layers": 1, "num_heads": 2, "mlp_ratio": 2}
    theirs = MAE(**shape).resize_abs_pos_embed({"pos_embed": stored.clone()})["pos_embed"]  # type: ignore
    ours = resample(stored, (14, 14), (32, 32), num_prefix=1, antialias=backbone.options.antialias)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
