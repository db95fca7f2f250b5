"""The suite's segmentor against mmsegmentation's own: weights, predictions, optimizer groups, steps, a whole training."""

from typing import Any

import pytest
import torch

from mae_bench.core.batches import Batches, Order, Share, loader
from mae_bench.core.engine import train
from mae_bench.core.errors import InputError
from mae_bench.core.optim import OptimConfig, build_optimizer, parameter_groups, set_lr
from mae_bench.core.run import Run
from tasks.data import ade20k

pytestmark = pytest.mark.edge
pytest.importorskip("tasks.edges.segmentation_run")

from tasks.edges import segmentation_data as data  # noqa: E402
from tasks.edges import segmentation_run as running  # noqa: E402
from tasks.edges.segmentation_mmseg import SegDataSample  # noqa: E402
from tasks.edges.segmentation_model import Segmenter, build_segmenter  # noqa: E402
from tasks.edges.segmentation_weights import load_weights  # noqa: E402
from tasks.handle import open_data  # noqa: E402
from tests.segmentation.mmseg_own import CLASSES, DEPTH, blank, own, theirs, twin  # noqa: E402


@pytest.fixture
def recipe(settings):
    """With all that mmseg's recipe has, and nothing random in a step."""
    return settings.override(
        {"relative_table": True, "layer_scale": 0.7, "out_layers": (0, 1, 2, 3), "dropout": 0.0, "layer_decay": 0.65}
    )


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def logits(segmentor, image):
    segmentor.eval()
    sample = SegDataSample(metainfo={"ori_shape": (45, 61), "img_shape": tuple(image.shape[-2:])})
    with torch.no_grad():
        prepared = segmentor.data_preprocessor({"inputs": [image], "data_samples": [sample]}, False)
        (found,) = segmentor(**prepared, mode="predict")
    return found.seg_logits.data, found.pred_sem_seg.data


@pytest.mark.parametrize("kind", ["MAE", "BEiT"])
@pytest.mark.parametrize("size", [(32, 32), (40, 70)])
def test_a_segmentor_of_mmsegs_predicts_the_same_here(recipe, tmp_path, kind, size):
    segmentor = own(kind, recipe)
    expected, labels = logits(segmentor, picture(*size))
    found, ours = logits(twin(segmentor, kind, recipe, tmp_path).segmentor, picture(*size))
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (ours == labels).float().mean() > 0.999


@pytest.mark.parametrize("kind", ["MAE", "BEiT"])
def test_a_cell_measures_a_segmentor_of_mmsegs_as_it_is(recipe, make_ade, tmp_path, kind):
    """One file as the model and as the weights, no step: the number is that of mmseg's own predictions."""
    from backbones.source import open_source
    from tasks.edges import segmentation_eval as measure
    from tasks.suite import segmentation

    segmentor, path = own(kind, recipe), tmp_path / "upernet.pth"
    torch.save({"meta": {}, "state_dict": segmentor.state_dict()}, path)
    handle = open_data(f"ade20k={make_ade()}")
    config = recipe.override({"weights": str(path), "steps": 0})
    found = segmentation.evaluate(open_source(str(path)), handle, config, Run(tmp_path / "out"))
    views = data.TestViews(handle.split("val"), *data.test_views(recipe, 32))
    samples = [Segmenter(segmentor).eval().predict(data.collate(views[index]))[0] for index in range(len(views))]
    total = torch.stack([measure.areas(sample, CLASSES) for sample in samples]).sum(dim=0)
    assert found == pytest.approx(measure.summary(total), abs=0.05)


def test_weights_that_do_not_fit_are_refused_by_name(recipe, tmp_path):
    path = tmp_path / "segmentor.pth"
    state = own("MAE", recipe).state_dict()

    def refused(state, match, kind="MAE", config=recipe):
        torch.save({"state_dict": state}, path)
        with pytest.raises(InputError, match=match):
            load_weights(build_segmenter(blank(kind, config), config, CLASSES), path)

    refused({**state, "backbone.extra": torch.zeros(1)}, r"has besides 1 tensors \(backbone\.extra\)")
    lacking = {name: tensor for name, tensor in state.items() if name != "decode_head.conv_seg.bias"}
    refused(lacking, r"lacks 1 tensors \(decode_head\.conv_seg\.bias\)")
    refused({**state, "decode_head.conv_seg.bias": torch.zeros(5)}, r"conv_seg\.bias is \(5,\) in place of \(3,\)")
    refused({**state, "decode_head.conv_seg.bias": torch.tensor([0, 0, float("nan")])}, r"conv_seg\.bias has values that are NaN")
    refused(state, r"has besides 1 tensors \(backbone\.pos_embed\)", kind="BEiT")
    with pytest.raises(InputError, match="No such file"):
        load_weights(build_segmenter(blank("MAE", recipe), recipe, CLASSES), tmp_path / "none.pth")


def optimizer_of(segmentor, recipe, constructor, **paramwise):
    from mmengine.optim import build_optim_wrapper

    optimizer = {"type": "AdamW", "lr": recipe.lr, "weight_decay": recipe.weight_decay}
    config = {"type": "OptimWrapper", "optimizer": optimizer, "constructor": constructor, "paramwise_cfg": paramwise}
    return build_optim_wrapper(segmentor, config)


def mmsegs_optimizer(segmentor, recipe) -> Any:
    return optimizer_of(
        segmentor,
        recipe,
        "mmseg.LearningRateDecayOptimizerConstructor",
        num_layers=DEPTH,
        decay_rate=recipe.layer_decay,
        decay_type="layer_wise",
    )


def settings_of_each(model, groups) -> dict[str, tuple[float, float]]:
    """Rate scale and weight decay of each parameter, by mmseg's name."""
    found = {id(one): (group["lr_scale"], group["weight_decay"]) for group in groups for one in group["params"]}
    return {theirs(name): found[id(one)] for name, one in model.named_parameters() if id(one) in found}


def our_groups(model, recipe):
    from backbones.layers import layer_ids

    layer_id, depth = layer_ids(model)
    config = OptimConfig(lr=recipe.lr, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay)
    return parameter_groups(model, config, layer_id=layer_id, depth=depth), config


def test_every_parameter_has_the_rate_and_decay_that_mmseg_gives_it(recipe, tmp_path):
    """Position tables, LayerScale and the class token among them."""
    segmentor = own("MAE", recipe)
    expected = settings_of_each(segmentor, mmsegs_optimizer(segmentor, recipe).optimizer.param_groups)
    model = twin(segmentor, "MAE", recipe, tmp_path).segmentor
    found = settings_of_each(model, our_groups(model, recipe)[0])
    assert found.keys() == expected.keys() and len(found) > 100
    for name in expected:
        assert found[name] == pytest.approx(expected[name]), name
    inside = optimizer_of(model, recipe, "mmseg.MaeBenchLayerDecay", num_layers=DEPTH, layer_decay_rate=recipe.layer_decay)
    ours_in_mmengine = settings_of_each(model, inside.optimizer.param_groups)
    for name in expected:
        assert ours_in_mmengine[name] == pytest.approx(expected[name]), name


def in_double(segmentor) -> None:
    """Compute in float64, so that what is left of a difference is one of the formulas; the sign of a tiny gradient decides a
    step of Adam, and in float32 it is noise."""
    segmentor.double()
    segmentor.data_preprocessor.float()
    segmentor.backbone.register_forward_pre_hook(lambda _, given: (given[0].double(),))


def test_one_step_of_the_optimizer_leaves_the_same_weights(recipe, make_ade, tmp_path):
    samples = data.SegmentationData(ade20k.load(make_ade(), "train"), data.train_pipeline(recipe, 32))
    batch = data.collate([samples[0], samples[1]])
    segmentor = own("MAE", recipe)
    model = twin(segmentor, "MAE", recipe, tmp_path)
    in_double(segmentor)
    in_double(model.segmentor)
    before = {name: one.detach().clone() for name, one in segmentor.named_parameters()}
    segmentor.train().train_step(batch, mmsegs_optimizer(segmentor, recipe))

    groups, config = our_groups(model, recipe)
    optimizer = build_optimizer(groups, config)
    set_lr(optimizer, config.lr)
    torch.stack(list(model.train()(batch).values())).sum().backward()
    optimizer.step()
    expected = dict(segmentor.named_parameters())
    changed = [name for name, one in model.segmentor.named_parameters() if not torch.equal(one, before.get(theirs(name), one))]
    assert len(changed) > 100
    for name, one in model.segmentor.named_parameters():
        if one.requires_grad:
            torch.testing.assert_close(one, expected[theirs(name)], rtol=0, atol=1e-9)


class SameOrder:
    """The batches of the suite's engine, in the place of a data loader of mmengine's."""

    def __init__(self, dataset, recipe) -> None:
        self.dataset, self.recipe = dataset, recipe

    def __len__(self):
        return self.recipe.steps

    def __iter__(self):
        order = Order(len(self.dataset), self.recipe.batch_size, seed=0, drop_last=False)
        return iter(loader(self.dataset, data.collate, Batches(order, 0, self.recipe.steps, Share()), seed=0, workers=0))


def losses_of_mmengine(segmentor, samples, recipe, folder) -> list[float]:
    """The losses of mmengine's own `Runner` with mmseg's own schedule, on the samples in the order of the suite's."""
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    found: list[float] = []

    class Keep(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            found.append(float((outputs or {})["loss"].detach()))

    steps, warmup = recipe.steps, recipe.warmup_steps
    quiet: Any = {"logger": None, "checkpoint": None, "timer": None, "runtime_info": None}
    batches: Any = SameOrder(samples, recipe)
    runner = Runner(
        model=segmentor,
        work_dir=str(folder),
        train_dataloader=batches,
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": steps, "val_interval": 10 * steps},
        optim_wrapper=mmsegs_optimizer(segmentor, recipe),
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 1e-6, "by_epoch": False, "begin": 0, "end": warmup},
            {"type": "PolyLR", "eta_min": 0.0, "power": 1.0, "begin": warmup, "end": steps, "by_epoch": False},
        ],
        default_hooks=quiet,
        custom_hooks=[Keep()],
        default_scope="mmseg",
        log_level="ERROR",
        experiment_name=folder.name,
    )
    runner.train()
    return found


def test_the_first_20_losses_are_those_of_mmengines_runner(recipe, make_ade, tmp_path):
    """mmseg's own segmentor, constructor, schedule and loop against the suite's engine: all that trains is another's."""
    recipe = recipe.override({"steps": 20, "warmup_steps": 6, "lr": 1e-3})
    samples = data.SegmentationData(ade20k.load(make_ade(), "train"), data.train_pipeline(recipe, 32))
    segmentor = own("MAE", recipe)
    model = twin(segmentor, "MAE", recipe, tmp_path)
    in_double(segmentor)
    in_double(model.segmentor)
    expected = losses_of_mmengine(segmentor, samples, recipe, tmp_path / "runner")
    ours = train(running.training(model, samples, recipe, key="parity"), Run(tmp_path / "run")).losses
    assert len(ours) == 20 and max(ours) - min(ours) > 0.05
    assert ours == pytest.approx(expected, abs=2e-7), "losses are told in float32"
