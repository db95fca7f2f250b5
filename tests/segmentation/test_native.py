"""The backbone in configs of mmengine's: a user's own file, and the file of a cell."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from backbones.source import open_source
from mae_bench.core.errors import ConfigError
from tasks.handle import open_data
from tasks.suite import segmentation
from tasks.suite.segmentation import RECIPES

pytestmark = pytest.mark.edge
pytest.importorskip("tasks.edges.segmentation_export")

from mmengine.config import Config as File  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402

from tasks.edges.segmentation_mmseg import build_model  # noqa: E402
from tasks.edges.segmentation_model import build_backbone  # noqa: E402

SOURCE = "random:vit_demo_patch8"

OWN = """
_base_ = ["{mmseg}/.mim/configs/_base_/models/upernet_mae.py"]
custom_imports = dict(imports=["backbones.adapters.to_mmseg"], allow_failed_imports=False)
norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(_delete_=True, type="MaeBenchBackbone", source="random:vit_demo_patch8", image_size=(64, 64), drop_path=0.1,
                  relative_table=True, layer_scale=1.0),
    neck=dict(embed_dim=128, rescales=[2, 1, 0.5, 0.25], norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[128] * 4, channels=16, num_classes=5, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=128, channels=16, num_classes=5, norm_cfg=norm_cfg),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="MaeBenchLayerDecay",
    paramwise_cfg=dict(num_layers=4, layer_decay_rate=0.65),
)
"""


def test_a_users_own_config_trains_a_step(tmp_path):
    """The line of custom_imports is all it needs; mmseg's own base config stands below it."""
    import mmseg
    from mmengine.optim import build_optim_wrapper
    from mmseg.structures import SegDataSample

    base = Path(mmseg.__file__).parent
    if not (base / ".mim/configs/_base_/models/upernet_mae.py").is_file():
        pytest.skip("this mmseg comes without its configs")
    (tmp_path / "own.py").write_text(OWN.format(mmseg=base))
    read = File.fromfile(tmp_path / "own.py")
    with DefaultScope.overwrite_default_scope("mmseg"):  # as mmengine's runner does by the line `default_scope`
        segmentor = build_model(read.model.to_dict())
        segmentor.init_weights()
    with DefaultScope.overwrite_default_scope("mmseg"):
        wrapper = build_optim_wrapper(segmentor, read.optim_wrapper)
    net = segmentor.backbone.backbone.net
    before = net.blocks[0].attn.relative_position_bias_table.detach().clone()
    labels: Any = torch.randint(0, 5, (1, 64, 64))
    sample = SegDataSample()
    sample.set_data({"gt_sem_seg": _pixels(labels)})
    batch = {"inputs": [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)] * 2, "data_samples": [sample, sample.clone()]}
    losses = segmentor.train().train_step(batch, wrapper)
    assert float(losses["loss"].detach()) > 0
    assert not torch.equal(net.blocks[0].attn.relative_position_bias_table, before)
    rates = {group["lr_scale"] for group in wrapper.optimizer.param_groups}
    assert sorted(rates) == pytest.approx([0.65 ** (5 - exponent) for exponent in range(6)])


def _pixels(labels):
    from mmengine.structures import PixelData

    return PixelData(data=labels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs one layer_decay_rate"),
        ({"layer_decay_rate": 0.65, "custom_keys": {}}, "unknown key 'custom_keys'"),
        ({"layer_decay_rte": 0.65}, "unknown key 'layer_decay_rte'; did you mean layer_decay_rate"),
        ({"layer_decay_rate": 0.65, "decay_rate": 0.7}, "needs one layer_decay_rate"),
        ({"layer_decay": 1.5}, "above 0 and up to 1"),
        ({"layer_decay": 0.65, "num_layers": 12}, "num_layers is 12, and the backbone has 4 blocks"),
    ],
)
def test_layer_decay_refuses_what_it_does_not_read(given, message):
    from mmengine.optim import build_optim_wrapper

    backbone = build_model_of({"type": "MaeBenchBackbone", "source": SOURCE})
    config = {"optimizer": {"type": "AdamW", "lr": 1.0}, "constructor": "mmseg.MaeBenchLayerDecay", "paramwise_cfg": given}
    with pytest.raises(ConfigError, match=message):
        build_optim_wrapper(backbone, config)


def build_model_of(config):
    from mmseg.registry import MODELS

    return MODELS.build(config)


def test_settings_beside_a_backbone_that_is_built_are_refused():
    from backbones.adapters.to_mmseg import MaeBenchBackbone

    with pytest.raises(ConfigError, match="settings for a source beside a backbone"):
        MaeBenchBackbone(open_source(SOURCE).build(), drop_path=0.1)
    with pytest.raises(ConfigError, match="whole patches"):
        MaeBenchBackbone(source=SOURCE, image_size=(60, 64))


@pytest.mark.parametrize("recipe", ["paper", "supervised", "linear", "linear-ms", "frozen"])
def test_config_of_a_cell_builds_the_same_network(tmp_path, recipe):
    from tasks.edges.segmentation_config import segmentor_config

    source, config = open_source(SOURCE), RECIPES[recipe].override({"image_size": 64, "test_stride": None, "out_layers": None})
    segmentation.export_native(source, config, tmp_path / "cell.py")
    read = File.fromfile(tmp_path / "cell.py")
    torch.manual_seed(3)
    built = build_model(read.model.to_dict())
    torch.manual_seed(3)
    backbone = build_backbone(source, config, seed=0)
    same = build_model(segmentor_config(backbone, source.spec, config, 150, distributed=True))
    found, expected = built.state_dict(), same.state_dict()
    assert found.keys() == expected.keys()
    for name in expected:
        if name.startswith("backbone."):
            assert torch.equal(found[name], expected[name]), name
        assert found[name].shape == expected[name].shape, name
    learning = [{name for name, one in model.named_parameters() if one.requires_grad} for model in (built, same)]
    assert learning[0] == learning[1]
    assert read.train_cfg.max_iters == config.steps and read.optim_wrapper.optimizer.lr == config.lr
    assert ("tta_pipeline" in read) == (recipe == "linear-ms")


def test_config_of_a_cell_reads_the_data_and_gives_the_rates(tmp_path, make_ade, settings):
    """By mmseg's own data sets and transforms, and mmengine's own building of the optimizer."""
    from mmengine.optim import build_optim_wrapper
    from mmseg.registry import DATASETS

    handle = open_data(f"ade20k={make_ade()}")
    config = settings.override({"class_balance": 0.5, "test_flip": True})
    segmentation.export_native(open_source(SOURCE), config, tmp_path / "cell.py", handle=handle)
    read = File.fromfile(tmp_path / "cell.py")
    with DefaultScope.overwrite_default_scope("mmseg"):
        training, validation = (DATASETS.build(read[f"{which}_dataloader"].dataset) for which in ("train", "val"))
    assert (len(training), len(validation)) == (6, 3) and training.metainfo["classes"] == ("ground", "red", "blue")
    ours = handle.split("val").labels(0)
    sample = validation[0]["data_samples"]
    assert torch.equal(sample.gt_sem_seg.data[0].to(torch.uint8), torch.from_numpy(ours.copy()))
    assert len(read.model.decode_head.loss_decode.class_weight) == 3
    with DefaultScope.overwrite_default_scope("mmseg"):
        wrapper = build_optim_wrapper(build_model(read.model.to_dict()), read.optim_wrapper)
    assert {round(group["lr"] / config.lr, 6) for group in wrapper.optimizer.param_groups} == {
        round(config.layer_decay**exponent, 6) for exponent in range(6)
    }
    assert [len(part) for part in read.tta_pipeline[1]["transforms"]] == [1, 2, 1, 1]


@pytest.mark.parametrize(("warmup", "steps", "parts"), [(2, 6, 2), (0, 6, 1), (4, 6, 2)])
def test_schedule_of_a_cell_is_one_that_mmengine_takes(tmp_path, settings, warmup, steps, parts):
    """Its own schedulers are built of it, and give the suite's rates."""
    from mmengine.registry import PARAM_SCHEDULERS

    from tasks.edges.segmentation_run import WARMUP_START, MmengineSchedule

    config = settings.override({"warmup_steps": warmup, "steps": steps})
    segmentation.export_native(open_source(SOURCE), config, tmp_path / "cell.py")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    given = File.fromfile(tmp_path / "cell.py").param_scheduler
    schedulers = [PARAM_SCHEDULERS.build({**one, "optimizer": optimizer}) for one in reversed(given)]
    assert len(schedulers) == parts
    ours = MmengineSchedule(kind="poly", warmup_steps=warmup, warmup_start=WARMUP_START)
    for step in range(steps):
        assert ours.factor(step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        for scheduler in reversed(schedulers):
            scheduler.step()


@pytest.mark.parametrize(
    ("name", "kind", "folders"),
    [
        ("cityscapes", "CityscapesDataset", ("leftImg8bit/val/x/a_leftImg8bit.png", "gtFine/val/x/a_gtFine_labelIds.png")),
        ("coco_stuff", "COCOStuffDataset", ("images/val2017/a.jpg", "annotations/val2017/a.png")),
    ],
)
def test_config_of_other_data_names_mmsegs_own_data_set(tmp_path, settings, name, kind, folders):
    from mmseg.registry import DATASETS

    root = tmp_path / "data"
    for which in ("train", "val"):
        for place, mode in zip(folders, ("RGB", "L"), strict=True):
            path = root / place.replace("val", which)
            path.parent.mkdir(parents=True)
            Image.new(mode, (8, 8), 7 if mode == "L" else 0).save(path)
    out = tmp_path / "cell.py"
    segmentation.export_native(open_source(SOURCE), settings, out, handle=open_data(f"{name}={root}"))
    read = File.fromfile(out)
    assert read.val_dataloader.dataset.type == kind
    with DefaultScope.overwrite_default_scope("mmseg"):
        built = DATASETS.build({**read.val_dataloader.dataset, "pipeline": []})
    assert len(built) == 1 and Path(built[0]["img_path"]).is_file()
    assert len(built.metainfo["classes"]) == read.model.decode_head.num_classes


def test_what_mmengine_has_no_words_for_is_refused(tmp_path, settings, make_ade):
    source, out = open_source(SOURCE), tmp_path / "cell.py"
    for changes, message in (
        ({"weights": "x.pth"}, "segmentation.weights cannot be written"),
        ({"exempt": "positions"}, "exempt=positions with a layer decay"),
        ({"class_balance": 0.5}, "class_balance=0.5 counts the pixels of a data set"),
    ):
        with pytest.raises(ConfigError, match=message):
            segmentation.export_native(source, settings.override(changes), out)
    with pytest.raises(ConfigError, match=r"is a \.py file"):
        segmentation.export_native(source, settings, tmp_path / "cell.yaml")
    assert not out.exists()
