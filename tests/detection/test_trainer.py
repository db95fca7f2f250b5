"""The same training by the suite's engine and by Detectron2's own trainer."""

import copy
import warnings

import pytest

pytest.importorskip("detectron2")

import torch
from detectron2.engine import SimpleTrainer, hooks
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler

from mae_bench.core.batches import Order, Seeded
from mae_bench.core.engine import train
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from mae_bench.core.seeding import seed_all
from tasks.edges.detection_data import TrainImages
from tasks.edges.detection_model import backbone_options, build_detector
from tasks.edges.detection_run import training

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]

STEPS, SEED = 6, 4


def native_losses(model, split, config):
    """Losses of Detectron2's SimpleTrainer with ViTDet's optimizer and schedule, on the same samples and random numbers."""
    data = Seeded(TrainImages(split, config, masks=True), SEED)

    def batches():
        order = Order(len(TrainImages(split, config, masks=True)), config.batch_size, SEED)
        for step in range(STEPS):
            batch = [data[key] for key in order.batch(step)]
            seed_all(SEED, "step", step, 0, 0)
            yield batch

    def rate(name):
        return get_vit_lr_decay_rate(name.replace("backbone.net.net.net.", "backbone.net."), config.optim.layer_decay, 4)

    groups = get_default_optimizer_params(
        model, base_lr=config.optim.lr, weight_decay_norm=0.0, lr_factor_func=rate, overrides={"pos_embed": {"weight_decay": 0.0}}
    )
    optimizer = torch.optim.AdamW(groups, lr=config.optim.lr, weight_decay=config.optim.weight_decay)
    drops = MultiStepParamScheduler([1.0, 0.1], milestones=list(config.schedule.milestones), num_updates=STEPS)
    warmup = WarmupParamScheduler(drops, config.schedule.warmup_start, config.schedule.warmup_steps / STEPS, "linear")
    trainer = SimpleTrainer(model.train(), batches(), optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.register_hooks([hooks.LRScheduler(optimizer, LRMultiplier(optimizer, warmup, STEPS))])
        trainer.train(0, STEPS)
    return [value for value, _ in trainer.storage.history("total_loss").values()]


def test_losses_equal_those_of_detectron2s_trainer(backbone, splits, settings, tmp_path):
    schedule = ScheduleConfig(kind="multistep", warmup_steps=2, warmup_start=0.001, milestones=(4,), gamma=0.1)
    config = settings.model_copy(update={"schedule": schedule, "steps": STEPS})
    split = splits()[0]
    ours = build_detector(backbone(backbone_options(config, backbone().spec)), config, num_classes=2, masks=True)
    theirs = copy.deepcopy(ours)
    theirs.__class__ = GeneralizedRCNN
    expected = native_losses(theirs, split, config)
    found = train(training(ours, split, config, masks=True, key="parity"), Run(out=tmp_path / "run", seed=SEED)).losses
    assert found == pytest.approx(expected, rel=1e-5)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
