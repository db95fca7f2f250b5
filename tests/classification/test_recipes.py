"""The published recipes, value by value, and at full size."""

from dataclasses import replace

import pytest
import torch

from backbones.contract import DenseOptions
from backbones.layers import layer_ids
from backbones.source import open_source
from backbones.zoo import vit
from mae_bench.core.find import load, names
from mae_bench.core.optim import OptimConfig, parameter_groups
from mae_bench.core.run import Run
from tasks.common.classifiers import FineTuned, PartlyTuned, Regularise
from tasks.common.sizes import crop_ratio
from tasks.common.train import no_decay
from tasks.suite import finetune, knn, linear, logistic, partial


def test_knn_is_dinos():
    paper = knn.RECIPES["paper"]
    assert (paper.k, paper.also_k, paper.temperature) == (20, (10, 100, 200), 0.07)
    assert (paper.pool, paper.crop_ratio, paper.image_size) == ("cls", 0.875, None)


def test_linear_is_table_10():
    paper = linear.RECIPES["paper"]
    assert (paper.optimizer, paper.base_lr, paper.batch_size, paper.epochs, paper.warmup_epochs) == ("lars", 0.1, 16384, 90, 10)
    assert (paper.cached, paper.rates, paper.accumulate) == (False, 1, 1)
    assert (paper.pool, paper.crop_scale, paper.flip, paper.crop_ratio) == ("cls", (0.08, 1.0), 0.5, 0.875)


@pytest.mark.parametrize("recipe", ["paper-large", "paper-huge"])
def test_linear_of_larger_networks_is_shorter(recipe):
    """FINETUNE.md of the released code: 50 epochs are enough for ViT-L and ViT-H."""
    assert linear.RECIPES[recipe] == linear.RECIPES["paper"].override({"epochs": 50})


@pytest.mark.parametrize(
    ("recipe", "values"),
    [("paper", (100, 5e-4, 0.65, 0.1)), ("paper-large", (50, 1e-3, 0.75, 0.2)), ("paper-huge", (50, 1e-3, 0.75, 0.3))],
)
def test_finetune_is_the_released_code(recipe, values):
    paper = finetune.RECIPES[recipe]
    assert (paper.epochs, paper.base_lr, paper.layer_decay, paper.drop_path) == values
    assert (paper.batch_size, paper.weight_decay, paper.mixup, paper.cutmix, paper.random_erasing) == (1024, 0.05, 0.8, 1.0, 0.25)
    assert (paper.smoothing, paper.rand_augment, paper.min_lr, paper.warmup_epochs) == (0.1, "rand-m9-mstd0.5-inc1", 1e-6, 5)
    assert (paper.pool, paper.crop_scale, paper.flip, paper.crop_ratio) == ("mean", (0.08, 1.0), 0.5, None)


@pytest.mark.parametrize(("side", "ratio"), [(224, 0.875), (192, 0.875), (256, 1.0), (448, 1.0)])
def test_large_inputs_are_not_cropped_in_finetuning(side, ratio):
    assert crop_ratio((side, side), finetune.RECIPES["paper"].crop_ratio) == ratio
    assert crop_ratio((side, side), 0.9) == 0.9


def test_partial_is_table_9_for_the_numbers_of_blocks_of_figure_9():
    paper = partial.RECIPES["paper"]
    assert (paper.epochs, paper.base_lr, paper.layer_decay, paper.drop_path, paper.warmup_epochs) == (50, 1e-3, 0.75, 0.1, 5)
    same = {name: getattr(paper, name) for name in finetune.Config.model_fields}
    changed = {"epochs": 50, "base_lr": 1e-3, "layer_decay": 0.75}
    assert finetune.Config(**same) == finetune.RECIPES["paper"].override(changed)
    blocks = {config.blocks for name, config in partial.RECIPES.items() if name.startswith("paper-")}
    assert blocks == {0.5, 1.0, 2.0, 4.0, 6.0, 12.0, 18.0}


def test_logistic_is_clips():
    paper = logistic.RECIPES["paper"]
    assert (paper.exponents, paper.steps_per_decade, paper.max_iter) == ((-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0), 8, 1000)


@pytest.mark.parametrize("task", [linear, finetune])
def test_values_of_another_size_are_told(task, tmp_path):
    run = Run(tmp_path)
    base, large = open_source("vit_base_patch16"), open_source("vit_large_patch16")
    assert task.deviations("paper", task.RECIPES["paper"], base, run) == ()
    assert task.deviations("paper-large", task.RECIPES["paper-large"], large, run) == ()
    (line,) = task.deviations("paper", task.RECIPES["paper"], large, run)
    assert (
        line
        == "recipe paper has the values of ViT-B, and this network has width 1024 and depth 24; paper-large is that of this size"
    )
    assert task.deviations("demo", task.RECIPES["demo"], large, run) == ()


def test_partial_is_of_vit_large(tmp_path):
    run = Run(tmp_path)
    (line,) = partial.deviations("paper-1", partial.RECIPES["paper-1"], open_source("vit_base_patch16"), run)
    assert "has the values of ViT-L" in line
    assert partial.deviations("paper-1", partial.RECIPES["paper-1"], open_source("vit_large_patch16"), run) == ()


@pytest.mark.parametrize("task", [knn, linear, logistic])
def test_a_network_without_a_final_norm_is_told(task, tmp_path):
    """As MAE's fine-tuned files have it."""
    source = open_source("vit_base_patch16")
    source = replace(source, arch=source.arch.override({"final_norm": False}))
    (line,) = task.deviations("paper", task.RECIPES["paper"], source, Run(tmp_path))
    assert line == "the network has no final norm: features are taken as they leave the last block"


@pytest.mark.parametrize("blocks", [0.5, 4.0, 24.0])
def test_partial_constructs_at_full_size(blocks):
    regularise = Regularise(1000, smoothing=0.1, mixup=0.8, cutmix=1.0, erasing=0.25, device="cpu")
    with torch.device("meta"):
        model = PartlyTuned(vit.build("vit_large_patch16"), 1000, pool="mean", regularise=regularise, blocks=blocks)
    layer_id, depth = layer_ids(model)
    optim = OptimConfig(lr=1e-3, layer_decay=0.75)
    groups = parameter_groups(model, optim, layer_id=layer_id, depth=depth, no_decay=no_decay)
    trained = {name for group in groups for name in group["names"]}
    # 12 parameters in a block, 6 in its MLP half; norm and head of the classifier have 4.
    assert len(trained) == 4 + (6 if blocks == 0.5 else 12 * int(blocks))
    assert min(group["lr_scale"] for group in groups) == pytest.approx(0.75 ** max(1, blocks))


@pytest.mark.parametrize("arch", ["vit_base_patch16", "vit_large_patch16", "vit_huge_patch14"])
def test_finetune_constructs_at_full_size(arch):
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
    for name in names("tasks.suite"):
        assert {"paper", "demo"} <= set(load("tasks.suite", name, what="task").RECIPES), name
