"""The same training by the suite's engine and by Detectron2's own trainer of its own model and parameter groups."""

import warnings

import pytest

pytest.importorskip("detectron2")

import torch
from detectron2.engine import SimpleTrainer, hooks
from detectron2.solver import LRMultiplier, WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

from mae_bench.core.batches import Order, Seeded
from mae_bench.core.engine import train
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from mae_bench.core.seeding import seed_all
from tasks.edges.detection_data import TrainImages
from tasks.edges.detection_load import load_detector
from tasks.edges.detection_model import build_detector
from tasks.edges.detection_run import training
from tasks.suite.detection import dense_options
from tests.detection import native

pytestmark = [
    pytest.mark.edge,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under NumPy 2
]

SEED = 4


def native_losses(model, split, config):
    """Losses of Detectron2's SimpleTrainer with ViTDet's optimizer and schedule, on the same samples and random numbers."""
    data = Seeded(TrainImages(split, config, masks=True), SEED)

    def batches():
        order = Order(len(TrainImages(split, config, masks=True)), config.batch_size, SEED, drop_last=False)
        for step in range(config.steps):
            batch = [data[key] for key in order.batch(step)]
            seed_all(SEED, "step", step, 0, 0)
            yield batch

    optimizer = native.optimizer(model, config.optim.layer_decay, config.optim.lr, config.optim.weight_decay)
    schedule = config.schedule
    drops = MultiStepParamScheduler(
        [1.0, 0.1][: 1 + len(schedule.milestones)], milestones=list(schedule.milestones), num_updates=config.steps
    )
    warmup = WarmupParamScheduler(drops, schedule.warmup_start, schedule.warmup_steps / config.steps, "linear")
    trainer = SimpleTrainer(model.train(), batches(), optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.register_hooks([hooks.LRScheduler(optimizer, LRMultiplier(optimizer, warmup, config.steps))])
        trainer.train(0, config.steps)
    return [value for value, _ in trainer.storage.history("total_loss").values()]


@pytest.mark.parametrize(("steps", "cascade"), [(1, False), (20, False), (3, True)])
def test_losses_and_weights_equal_those_of_detectron2(backbone, splits, settings, tmp_path, steps, cascade):
    # At the peak rate from the start where there is one step, so that it changes the weights.
    schedule = ScheduleConfig(
        kind="multistep", warmup_steps=min(2, steps - 1), warmup_start=0.001, milestones=(15,) * (steps > 15), gamma=0.1
    )
    changes = {"window": 3, "global_blocks": 2, "rel_pos": True, "steps": steps, "head.cascade": cascade}
    config = settings.model_copy(update={"schedule": schedule}).override(changes)
    split = splits(train=6)[0]
    theirs = native.build(native.vitdet(cascade=cascade))
    spec = backbone(**native.FACTS).spec
    ours = build_detector(backbone(dense_options(config, spec), **native.FACTS), config, num_classes=2, masks=True)
    load_detector(ours, str(native.write(theirs, tmp_path / "begin.pkl")))
    begin = {name: value.clone() for name, value in theirs.state_dict().items()}

    expected = native_losses(theirs, split, config)
    run = Run(out=tmp_path / "run", seed=SEED)
    found = train(training(ours, split, config, masks=True, key="parity"), run).losses
    assert len(found) == steps and found == pytest.approx(expected, rel=1e-5)

    weights = {name.replace("backbone.net.net.net.", "backbone.net."): value for name, value in ours.state_dict().items()}
    for name, value in theirs.state_dict().items():
        mine = weights[name]
        value, before = (part[:, 1:] if name.endswith("pos_embed") else part for part in (value, begin[name]))
        if name.endswith("qkv.bias"):
            # A key's bias shifts all scores of a query alike. Its gradient is rounding errors, which AdamW makes steps of.
            mine, value, before = (torch.cat([part.chunk(3)[i] for i in (0, 2)]) for part in (mine, value, before))
        torch.testing.assert_close(mine, value, rtol=1e-4, atol=1e-5, msg=name)
        # What a step moved is equal too, and not only what it moved from.
        moved = (value - before).abs().max()
        if moved > 1e-6:
            assert float((mine - value).abs().max() / moved) < 0.05, name
