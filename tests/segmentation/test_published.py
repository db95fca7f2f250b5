"""The recipes against the published configs that mmsegmentation comes with: networks, data, rates, decays."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.suite.segmentation import RECIPES
from tests.segmentation.full_size import VARIANTS, full_size

pytestmark = pytest.mark.edge
pytest.importorskip("tasks.edges.segmentation_run")

PUBLISHED = {
    "paper": "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py",
    "supervised": "vit/vit_deit-b16_mln_upernet_8xb2-160k_ade20k-512x512.py",
    "beit-640": "beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py",
    "beit-large-640": "beit/beit-large_upernet_8xb1-amp-160k_ade20k-640x640.py",
}


def published(recipe):
    """mmseg's own config, as installed with it."""
    import mmseg
    from mmengine.config import Config as File

    path = Path(mmseg.__file__).parent / ".mim/configs" / PUBLISHED[recipe]
    return File.fromfile(path) if path.is_file() else pytest.skip("this mmseg comes without its configs")


@pytest.mark.parametrize("recipe", list(PUBLISHED))
def test_network_is_the_published(recipe):
    theirs, config = published(recipe).model, RECIPES[recipe]
    built, ours = full_size(VARIANTS.get(recipe, "vit_base_patch16"), config)
    for part in ("neck", "decode_head", "auxiliary_head"):
        # The pyramid's norm is that of its class by default, and the heads' outputs are as many as the classes.
        implied: dict[str, Any] = {"out_channels": 150} if part != "neck" else {}
        if part != "neck" or theirs.neck.type == "Feature2Pyramid":
            implied["norm_cfg"] = {"type": "SyncBN", "requires_grad": True}
        assert ours[part] == {**implied, **theirs[part].to_dict()}, part
    assert ours["test_cfg"] == theirs.test_cfg
    preprocessor = {**theirs.data_preprocessor.to_dict(), "type": "mmseg.SegDataPreProcessor"}
    for name, value in preprocessor.items():
        assert ours["data_preprocessor"][name] == (pytest.approx(value) if name in ("mean", "std") else value), name
    assert list(built.backbone.out_layers) == list(theirs.backbone.out_indices)
    assert config.drop_path == theirs.backbone.drop_path_rate
    assert config.layer_scale == theirs.backbone.get("init_values")
    assert config.relative_table == (theirs.backbone.type in ("MAE", "BEiT"))


@pytest.mark.parametrize("recipe", list(PUBLISHED))
def test_data_and_schedule_are_the_published(recipe):
    from tasks.edges import segmentation_data as data
    from tasks.edges import segmentation_run as running

    theirs, config = published(recipe), RECIPES[recipe]
    side = config.image_size
    for pipeline, expected in (
        (data.train_pipeline(config, side), theirs.train_pipeline),
        (data.test_pipeline(config, side), theirs.test_pipeline),
    ):
        changed = [step for step in pipeline if not step["type"].startswith("MaeBench")]
        assert [{**step, "ignore_index": 255} for step in changed] == [
            {**step.to_dict(), "ignore_index": 255} for step in expected if not step.type.startswith("Load")
        ]
    optimizer = theirs.optim_wrapper.optimizer
    assert (config.lr, config.weight_decay) == (optimizer.lr, optimizer.weight_decay)
    assert tuple(optimizer.betas) == running.OptimConfig(lr=1).betas
    assert config.layer_decay == theirs.optim_wrapper.paramwise_cfg.get("layer_decay_rate", 1.0)
    warmup, decay = theirs.param_scheduler
    batches = theirs.optim_wrapper.get("accumulative_counts", 1)
    assert (config.warmup_steps * batches, running.WARMUP_START) == (warmup.end, warmup.start_factor)
    assert (decay.end, decay.power, decay.eta_min) == (config.steps * batches, 1.0, 0.0)
    assert config.batch_size == 8 * theirs.train_dataloader.batch_size * batches, "8 processes"


def test_supervised_exempts_what_mmsegs_own_keys_come_to():
    """mmseg's key `norm` fits none of the norms of its backbone, so they decay."""
    from mmengine.optim import build_optim_wrapper
    from mmseg.registry import MODELS

    from tasks.edges.segmentation_run import positions_only

    theirs = published("supervised")
    small = {"img_size": (32, 32), "embed_dims": 16, "num_layers": 4, "num_heads": 2, "out_indices": (0, 1, 2, 3)}
    backbone = MODELS.build({**theirs.model.backbone.to_dict(), **small})
    module = torch.nn.ModuleDict({"backbone": backbone})
    wrapper = build_optim_wrapper(module, theirs.optim_wrapper.to_dict())
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    exempt = {names[id(one)] for group in wrapper.optimizer.param_groups if not group["weight_decay"] for one in group["params"]}
    assert exempt == {"backbone.cls_token", "backbone.pos_embed"}
    assert exempt == {name for name, parameter in module.named_parameters() if positions_only(name, parameter)}


@pytest.mark.parametrize(("warmup", "steps"), [(1500, 160_000), (5, 20), (0, 20)])
def test_rate_at_every_step_is_mmengines(warmup, steps):
    from mmengine.optim.scheduler import LinearLR, PolyLR

    from tasks.edges.segmentation_run import WARMUP_START, MmengineSchedule

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers: list[Any] = [PolyLR(optimizer, eta_min=0.0, power=1.0, begin=warmup, end=steps, by_epoch=False)]
    if warmup:
        schedulers.insert(0, LinearLR(optimizer, start_factor=1e-6, begin=0, end=warmup, by_epoch=False))
    ours = MmengineSchedule(kind="poly", warmup_steps=warmup, warmup_start=WARMUP_START)
    for step in range(min(steps, 2000)):
        expected = optimizer.param_groups[0]["lr"]
        assert ours.factor(step, steps) == pytest.approx(expected, abs=1e-9), step
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert ours.factor(steps - 1, steps) == 0.0
