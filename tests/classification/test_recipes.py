"""The published recipes, value by value, and at full size."""

import pytest
import torch

from mae_bench.core.find import names
from tasks.suite import finetune, knn, linear


def test_knn_is_dinos():
    paper = knn.RECIPES["paper"]
    assert (paper.k, paper.temperature, paper.pool, paper.crop_ratio) == (20, 0.07, "cls", 0.875)


def test_linear_is_table_10():
    paper = linear.RECIPES["paper"]
    assert (paper.optimizer, paper.base_lr, paper.batch_size, paper.epochs, paper.warmup_epochs) == ("lars", 0.1, 16384, 90, 10)
    assert not paper.cached
    assert paper.pool == "cls"


@pytest.mark.parametrize(
    ("recipe", "values"),
    [("paper", (100, 5e-4, 0.65, 0.1)), ("paper-large", (50, 1e-3, 0.75, 0.2)), ("paper-huge", (50, 1e-3, 0.75, 0.3))],
)
def test_finetune_is_the_released_code(recipe, values):
    paper = finetune.RECIPES[recipe]
    assert (paper.epochs, paper.base_lr, paper.layer_decay, paper.drop_path) == values
    assert (paper.batch_size, paper.weight_decay, paper.mixup, paper.cutmix, paper.random_erasing) == (1024, 0.05, 0.8, 1.0, 0.25)
    assert (paper.smoothing, paper.rand_augment, paper.min_lr, paper.warmup_epochs) == (0.1, "rand-m9-mstd0.5-inc1", 1e-6, 5)


@pytest.mark.parametrize("arch", ["vit_base_patch16", "vit_large_patch16", "vit_huge_patch14"])
def test_finetune_constructs_at_full_size(arch):
    from backbones.contract import DenseOptions
    from backbones.layers import layer_ids
    from backbones.zoo import vit
    from mae_bench.core.optim import OptimConfig, parameter_groups
    from tasks.common.classifiers import FineTuned, Regularise
    from tasks.common.train import no_decay

    regularise = Regularise(1000, smoothing=0.1, mixup=0.8, cutmix=1.0, erasing=0.25, device="cpu")
    with torch.device("meta"):
        backbone = vit.build(arch, dense=DenseOptions(drop_path=0.2))
        model = FineTuned(backbone, 1000, pool="mean", regularise=regularise)
    layer_id, depth = layer_ids(model)
    groups = parameter_groups(model, OptimConfig(lr=1e-3, layer_decay=0.75), layer_id=layer_id, depth=depth, no_decay=no_decay)
    scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert len(scales) == len([parameter for parameter in model.parameters() if parameter.requires_grad])
    assert scales["head.weight"] == scales["norm.weight"] == 1.0
    assert scales["backbone.net.patch_embed.proj.weight"] == pytest.approx(0.75 ** (depth + 1))
    assert scales[f"backbone.net.blocks.{depth - 1}.attn.qkv.weight"] == pytest.approx(0.75)


def test_every_task_has_a_demo_and_a_paper_recipe():
    from mae_bench.core.find import load

    for name in names("tasks.suite"):
        assert {"paper", "demo"} <= set(load("tasks.suite", name, what="task").RECIPES), name
