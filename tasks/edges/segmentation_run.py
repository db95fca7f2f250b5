"""One cell of the segmentation task: build, train by the suite's engine, predict, measure, draw."""

import os
from functools import partial

import torch

from backbones.contract import DenseOptions
from backbones.layers import layer_ids
from backbones.source import Source
from mae_bench.core.engine import Training, train
from mae_bench.core.errors import InputError
from mae_bench.core.files import write_with
from mae_bench.core.optim import OptimConfig
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from tasks.common.train import seeded, training_key
from tasks.edges import segmentation_eval as measure
from tasks.edges import segmentation_picture as picture
from tasks.edges.segmentation_data import SegmentationData, class_weights, collate, test_pipeline, train_pipeline
from tasks.edges.segmentation_model import Segmenter, build_segmenter, crop_side
from tasks.handle import DataHandle
from tasks.suite.segmentation import Config

WARMUP_START = 1e-6
"""Share of the peak rate that the warm-up begins at (mmseg MAE config).

mmengine's schedulers reach the peak and zero one step earlier than the suite's, at 1499 and 159,999 of 160,000 steps.
"""


def evaluate(source: Source, data: DataHandle, config: Config, run: Run) -> dict[str, float]:
    """Train and measure; see `tasks.suite.segmentation.evaluate`."""
    classes = data.classes
    if len(classes) < 2:
        raise InputError(f"{data.root}: segmentation needs at least two classes, and there is {len(classes)}")
    side = crop_side(config, source.spec)
    backbone = source.build(DenseOptions(image_size=(side, side), drop_path=config.drop_path), seed=run.seed)
    several, weights = _several_accelerators(run), class_weights(data.split("train"), config.class_balance)
    build = partial(build_segmenter, backbone, config, len(classes), class_weight=weights, distributed=several)
    model = seeded(build, run)
    samples = SegmentationData(data.split("train"), train_pipeline(config, side))
    train(training(model, samples, config, key=training_key(source, data, config, run)), run)
    return _measure(model, SegmentationData(data.split("val"), test_pipeline(config, side)), run)


def training(model: Segmenter, samples: SegmentationData, config: Config, *, key: str) -> Training:
    """The training of a recipe: AdamW with layer decay, linear warm-up, then linear decay to zero."""
    layer_id, depth = layer_ids(model)
    return Training(
        model=model,
        dataset=samples,
        collate=collate,
        optim=OptimConfig(name="adamw", lr=config.lr, weight_decay=config.weight_decay, layer_decay=config.layer_decay),
        schedule=ScheduleConfig(kind="poly", power=1.0, warmup_steps=config.warmup_steps, warmup_start=WARMUP_START),
        batch_size=config.batch_size,
        steps=config.steps,
        layer_id=layer_id,
        depth=depth,
        key=key,
        title="training segmentation",
        drop_last=False,  # mmseg's InfiniteSampler runs on from one epoch into the next
    )


def _measure(model: Segmenter, data: SegmentationData, run: Run) -> dict[str, float]:
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
    if int(os.environ.get("RANK", "0")) == 0:
        measure.write_per_class(run, total, classes)
        page = picture.draw(examples, classes, picture.class_colours(len(classes), data.split.palette))
        write_with(run.out / "predictions.png", lambda file: page.save(file, "PNG"))
    return result


def _several_accelerators(run: Run) -> bool:
    """Whether torchrun started several processes with an accelerator each, between which batch norms can be synchronised."""
    return run.device != "cpu" and int(os.environ.get("WORLD_SIZE", "1")) > 1
