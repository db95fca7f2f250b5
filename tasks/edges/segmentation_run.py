"""One cell of the segmentation task: build, train by the suite's engine, predict, measure, draw."""

import hashlib
from functools import partial
from pathlib import Path

import torch

from backbones.layers import layer_ids
from backbones.source import Source
from backbones.upernet import crop_side
from mae_bench.core import processes
from mae_bench.core.engine import Training, train
from mae_bench.core.errors import ConfigError, InputError
from mae_bench.core.files import write_with
from mae_bench.core.optim import OptimConfig, no_decay_1d
from mae_bench.core.parallel import join
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from tasks.common.readable import read_through
from tasks.common.train import check_whole, seeded, training_key
from tasks.edges import segmentation_eval as measure
from tasks.edges import segmentation_picture as picture
from tasks.edges.segmentation_data import SegmentationData, TestViews, class_weights, collate, test_views, train_pipeline
from tasks.edges.segmentation_model import Segmenter, build_backbone, build_segmenter
from tasks.edges.segmentation_weights import load_weights
from tasks.handle import DataHandle
from tasks.suite.segmentation import Config

WARMUP_START = 1e-6
"""Share of the peak rate that the warm-up begins at (mmseg MAE config)."""


class MmengineSchedule(ScheduleConfig):
    """`LinearLR` until a step and `PolyLR` of power 1 from it, as mmengine counts them: both reach their end a step early."""

    def factor(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step; see `ScheduleConfig.factor`."""
        if step < self.warmup_steps:
            return self.warmup_start + (1 - self.warmup_start) * min(1.0, step / max(1, self.warmup_steps - 1))
        return max(0.0, 1 - (step - self.warmup_steps) / max(1, steps - self.warmup_steps - 1))


def evaluate(source: Source, data: DataHandle, config: Config, run: Run) -> dict[str, float]:
    """Train and measure; see `tasks.suite.segmentation.evaluate`."""
    classes = data.classes
    if len(classes) < 2:
        raise InputError(f"{data.root}: segmentation needs at least two classes, and there is {len(classes)}")
    _check_processes(config, run)
    side = crop_side(config.image_size, source.spec)
    backbone = build_backbone(source, config, seed=run.seed)
    weights = class_weights(data.split("train"), config.class_balance)
    build = partial(build_segmenter, backbone, config, len(classes), class_weight=weights, distributed=_several_accelerators(run))
    model = seeded(build, run)
    key = training_key(source, data, config, run)
    if config.weights is not None:
        key = hashlib.sha256(f"{key} {load_weights(model, Path(config.weights))}".encode()).hexdigest()[:16]
    first, views = test_views(config, side)
    if config.steps:
        read_through(TestViews(data.split("val"), first, [[{"type": "MaeBenchLoadLabels"}]]), run, "segmentation")
        samples = SegmentationData(data.split("train"), train_pipeline(config, side))
        train(training(model, samples, config, key=key), run)
    else:
        join(run)
    return _measure(model, TestViews(data.split("val"), first, views), run)


def _check_processes(config: Config, run: Run) -> None:
    """All processes predict, so each needs the whole network; batch norms need two images where they are not synchronised."""
    check_whole("segmentation", run)
    share = config.batch_size / processes.world()
    if share < 2 and not _several_accelerators(run):
        raise ConfigError(
            f"segmentation.batch_size={config.batch_size} is {share:g} images for each of {processes.world()} processes; "
            f"batch norm needs 2: set at least {2 * processes.world()}"
        )


def training(model: Segmenter, samples: SegmentationData, config: Config, *, key: str) -> Training:
    """The training of a recipe: AdamW with layer decay, linear warm-up, then linear decay to zero."""
    layer_id, depth = layer_ids(model)
    return Training(
        model=model,
        dataset=samples,
        collate=collate,
        optim=OptimConfig(name="adamw", lr=config.lr, weight_decay=config.weight_decay, layer_decay=config.layer_decay),
        schedule=MmengineSchedule(kind="poly", warmup_steps=config.warmup_steps, warmup_start=WARMUP_START),
        batch_size=config.batch_size,
        steps=config.steps,
        layer_id=layer_id,
        depth=depth,
        no_decay=no_decay_1d if config.exempt == "1d" else positions_only,
        key=key,
        title="training segmentation",
        split_unit=0,  # batch norm
        drop_last=False,  # mmseg's InfiniteSampler runs on from one epoch into the next
    )


def positions_only(name: str, parameter: torch.nn.Parameter) -> bool:
    """Say which parameters have no weight decay in mmseg's configs/vit: their key `norm` fits none, since norms are called ln."""
    return name.rpartition(".")[2] in ("pos_embed", "cls_token")


def _measure(model: Segmenter, data: TestViews, run: Run) -> dict[str, float]:
    """Predict the validation split, leave `per_class.json` and `predictions.png`, and give the means."""
    model.to(run.device)
    classes = data.split.classes
    total, examples = torch.zeros(len(measure.AREAS), len(classes), dtype=torch.float64), []
    for index, sample in measure.predictions(model, data, run):
        total += measure.areas(sample, len(classes))
        if len(examples) < picture.MOST:
            true, predicted = (part.data.squeeze(0).cpu().numpy() for part in (sample.gt_sem_seg, sample.pred_sem_seg))
            examples.append(picture.Example(data.split.image(index), true, predicted))
    total = measure.sum_over_processes(total, run.device)
    result = measure.summary(total)
    if processes.is_main():
        measure.write_per_class(run, total, classes)
        page = picture.draw(examples, classes, picture.class_colours(len(classes), data.split.palette))
        write_with(run.out / "predictions.png", lambda file: page.save(file, "PNG"))
    return result


def _several_accelerators(run: Run) -> bool:
    """Whether torchrun started several processes with an accelerator each, between which batch norms can be synchronised."""
    return run.device != "cpu" and processes.world() > 1
