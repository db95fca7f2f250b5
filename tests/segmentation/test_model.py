"""The network: built from the recipes, losses as mmseg's own, the same from the same seed."""

from pathlib import Path

import pytest
import torch

from mae_bench.core.batches import Batches, Order, Share, loader
from mae_bench.core.engine import train
from mae_bench.core.run import Run
from mae_bench.core.schedule import ScheduleConfig
from tasks.data import ade20k
from tasks.suite.segmentation import RECIPES
from tests.segmentation.conftest import tiny_backbone

pytestmark = pytest.mark.edge
mmseg = pytest.importorskip("tasks.edges.segmentation_mmseg")
model = pytest.importorskip("tasks.edges.segmentation_model")
data = pytest.importorskip("tasks.edges.segmentation_data")
running = pytest.importorskip("tasks.edges.segmentation_run")


def full_size(variant, config):
    from backbones.contract import DenseOptions
    from backbones.zoo import vit

    side = model.crop_side(config, vit.spec_of(vit.VARIANTS[variant]))
    backbone = vit.empty(vit.VARIANTS[variant], vit.spec_of(vit.VARIANTS[variant]), DenseOptions(image_size=(side, side)))
    with torch.device("meta"):
        return mmseg.build_model(model.segmentor_config(backbone, config, 150, distributed=True))


def test_paper_recipe_at_full_size():
    built = full_size("vit_base_patch16", RECIPES["paper"])
    assert all(parameter.is_meta for parameter in built.parameters())
    assert built.backbone.out_layers == (3, 5, 7, 11)
    assert built.backbone.backbone.net.pos_embed.shape == (1, 1 + 32 * 32, 768)
    assert built.decode_head.channels == 768 and built.decode_head.conv_seg.weight.shape == (150, 768, 1, 1)
    assert built.auxiliary_head.channels == 256 and built.auxiliary_head.in_index == 2
    assert built.auxiliary_head.loss_decode.loss_weight == 0.4
    assert built.neck.rescales == [4, 2, 1, 0.5]
    assert built.test_cfg == {"mode": "slide", "crop_size": (512, 512), "stride": (341, 341)}
    assert built.data_preprocessor.size == (512, 512) and built.data_preprocessor.seg_pad_val == 255
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in built.modules())


def published():
    """mmseg's own config of the recipe, as installed with it."""
    import mmseg
    from mmengine.config import Config

    path = Path(mmseg.__file__).parent / ".mim/configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py"
    return Config.fromfile(path) if path.is_file() else pytest.skip("this mmseg comes without its configs")


def test_paper_recipe_is_the_published_config():
    theirs, paper = published(), RECIPES["paper"]
    ours = model.segmentor_config(full_size("vit_base_patch16", paper).backbone.backbone, paper, 150, distributed=True)
    for part in ("neck", "decode_head", "auxiliary_head"):
        # The neck's norm is that of its class by default, and the heads' outputs are as many as the classes.
        implied = {"norm_cfg": {"type": "SyncBN", "requires_grad": True}, **({"out_channels": 150} if part != "neck" else {})}
        assert ours[part] == {**implied, **theirs.model[part].to_dict()}, part
    assert ours["test_cfg"] == theirs.model.test_cfg
    preprocessor = {**theirs.model.data_preprocessor.to_dict(), "type": "mmseg.SegDataPreProcessor"}
    for name, value in preprocessor.items():
        assert ours["data_preprocessor"][name] == (pytest.approx(value) if name in ("mean", "std") else value), name
    assert list(full_size("vit_base_patch16", paper).backbone.out_layers) == theirs.model.backbone.out_indices
    assert paper.drop_path == theirs.model.backbone.drop_path_rate


def test_paper_recipe_has_the_published_data_and_schedule():
    theirs, paper = published(), RECIPES["paper"]
    for pipeline, expected in (
        (data.train_pipeline(paper, 512), theirs.train_pipeline),
        (data.test_pipeline(paper, 512), theirs.test_pipeline),
    ):
        changed = [step for step in pipeline if not step["type"].startswith("MaeBench")]
        assert [{**step, "ignore_index": 255} for step in changed] == [
            {**step.to_dict(), "ignore_index": 255} for step in expected if not step.type.startswith("Load")
        ]
    optimizer = theirs.optim_wrapper.optimizer
    assert (paper.lr, paper.weight_decay) == (optimizer.lr, optimizer.weight_decay)
    assert optimizer.betas == running.OptimConfig(lr=1).betas
    assert paper.layer_decay == theirs.optim_wrapper.paramwise_cfg.layer_decay_rate
    warmup, decay = theirs.param_scheduler
    assert (paper.warmup_steps, running.WARMUP_START) == (warmup.end, warmup.start_factor)
    assert (decay.end, decay.power, decay.eta_min) == (paper.steps, 1.0, 0.0)
    assert paper.batch_size == 8 * theirs.train_dataloader.batch_size, "8 processes"


def test_patch_14_crops_are_whole_patches():
    built = full_size("vit_huge_patch14", RECIPES["paper"])
    assert built.test_cfg["crop_size"] == (518, 518)
    assert built.backbone.out_layers == (10, 15, 20, 31)


def test_normalisation_is_the_backbones(settings):
    preprocessor = model.build_segmenter(tiny_backbone(), settings, 3).segmentor.data_preprocessor
    red = torch.zeros(3, 32, 32, dtype=torch.uint8)
    red[2] = 255  # the third channel of BGR
    (image,) = preprocessor({"inputs": [red], "data_samples": [mmseg.SegDataSample()]}, False)["inputs"]
    torch.testing.assert_close(image[:, 0, 0], torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]))


def test_only_losses_are_given(settings, make_ade):
    segmenter = model.build_segmenter(tiny_backbone(), settings, 3)
    batch = a_batch(settings, make_ade())
    losses = segmenter(batch)
    assert set(losses) == {"decode.loss_ce", "aux.loss_ce"}
    assert all(value.ndim == 0 and value.requires_grad for value in losses.values())
    # New heads know nothing: each loss is near that of guessing, the auxiliary one weighted.
    assert losses["decode.loss_ce"].item() == pytest.approx(1.0986, abs=0.3)
    assert losses["aux.loss_ce"].item() == pytest.approx(0.4 * 1.0986, abs=0.15)


def test_a_batch_can_be_used_again(settings, make_ade):
    segmenter = model.build_segmenter(tiny_backbone(), settings.override({"dropout": 0.0}), 3)
    batch = a_batch(settings, make_ade())
    first, second = segmenter(batch), segmenter(batch)
    assert all(first[name].item() == second[name].item() for name in first)


def test_same_seed_same_weights(settings, tmp_path):
    from tasks.common.train import seeded

    def build(seed):
        return seeded(lambda: model.build_segmenter(tiny_backbone(), settings, 3), Run(tmp_path, seed=seed)).state_dict()

    first, again, other = build(0), build(0), build(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["segmentor.decode_head.conv_seg.weight"], other["segmentor.decode_head.conv_seg.weight"])


def test_losses_equal_those_of_mmsegs_own_training_step(settings, make_ade, tmp_path, monkeypatch):
    """The suite's engine and mmengine's optimizer wrapper, on the same samples in the same order."""
    settings = settings.override({"dropout": 0.0, "steps": 4, "lr": 1e-3})
    monkeypatch.setattr(running, "ScheduleConfig", lambda **_: ScheduleConfig(kind="constant"))
    split = ade20k.load(make_ade(), "train")
    samples = data.SegmentationData(split, data.train_pipeline(settings, 32))
    segmenter = build_twin(settings)
    ours = train(running.training(segmenter, samples, settings, key="parity"), Run(tmp_path / "run")).losses

    segmentor = build_twin(settings).segmentor
    wrapper = mmengine_optimizer(segmentor, settings)
    batches = Batches(Order(len(samples), 2, seed=0, drop_last=False), 0, 4, Share())
    segmentor.train()
    theirs = []
    for batch in loader(samples, data.collate, batches, seed=0, workers=0):
        terms = segmentor.train_step(batch, wrapper)
        theirs.append(float(terms["loss"].detach()))
    assert len(ours) == 4 and ours[0] != ours[-1]
    assert ours == pytest.approx(theirs, abs=1e-6)


def build_twin(settings):
    torch.manual_seed(0)
    return model.build_segmenter(tiny_backbone(), settings, 3)


def mmengine_optimizer(segmentor, settings):
    from mmengine.optim import build_optim_wrapper

    optimizer = {"type": "AdamW", "lr": settings.lr, "weight_decay": settings.weight_decay}
    decay = {"layer_decay": settings.layer_decay}
    return build_optim_wrapper(
        segmentor, {"optimizer": optimizer, "constructor": "mmseg.MaeBenchLayerDecay", "paramwise_cfg": decay}
    )


def a_batch(settings, root):
    samples = data.SegmentationData(ade20k.load(root, "train"), data.train_pipeline(settings, 32))
    return data.collate([samples[0], samples[1]])


def test_class_weights_reach_both_losses(settings):
    segmentor = model.build_segmenter(tiny_backbone(), settings, 3, class_weight=[1.0, 2.0, 3.0]).segmentor
    for head in (segmentor.decode_head, segmentor.auxiliary_head):
        assert head.loss_decode.class_weight == [1.0, 2.0, 3.0]
