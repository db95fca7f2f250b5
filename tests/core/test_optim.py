"""Schedules, layer decay and LARS against what is known of them."""

import math

import pytest
import torch
from timm.optim._param_groups import param_groups_layer_decay
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn

from mae_bench.core.optim import OptimConfig, build_optimizer, parameter_groups, scaled_lr, set_lr
from mae_bench.core.schedule import ScheduleConfig


def test_cosine_equals_timm():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    peer = CosineLRScheduler(optimizer, t_initial=100, lr_min=0.01, warmup_t=10, warmup_prefix=False, warmup_lr_init=0.0)
    ours = ScheduleConfig(kind="cosine", warmup_steps=10, end=0.01)
    for step in (0, 5, 9):
        peer.step(step)
        assert ours.factor(step, 100) == pytest.approx(optimizer.param_groups[0]["lr"])
    # timm's cosine goes on from the step of the warm-up; MAE's (and ours) starts at its end.
    whole = ScheduleConfig(kind="cosine", end=0.01)
    for step in (0, 33, 99):
        peer = CosineLRScheduler(optimizer, t_initial=100, lr_min=0.01)
        peer.step(step)
        assert whole.factor(step, 100) == pytest.approx(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("kind", "step", "expected"),
    [
        ("poly", 50, 0.5),
        ("poly", 100, 0.0),
        ("multistep", 79, 1.0),
        ("multistep", 80, 0.1),
        ("multistep", 95, 0.01),
        ("constant", 99, 1.0),
    ],
)
def test_other_schedules(kind, step, expected):
    schedule = ScheduleConfig(kind=kind, milestones=(80, 90))
    assert schedule.factor(step, 100) == pytest.approx(expected)


def test_warm_up_reaches_the_peak():
    schedule = ScheduleConfig(warmup_steps=4, warmup_start=0.5)
    assert [schedule.factor(step, 10) for step in range(5)] == pytest.approx([0.5, 0.625, 0.75, 0.875, 1.0])


def test_layer_decay_equals_timm_on_vit_base():
    import timm

    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", global_pool="avg")  # as MAE fine-tunes: fc_norm, no norm

    exempt = {"pos_embed", "cls_token"}

    def layer_id(name):
        if name.startswith(("cls_token", "pos_embed", "patch_embed")):
            return 0
        return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 13

    config = OptimConfig(lr=1e-3, weight_decay=0.05, layer_decay=0.65)
    ours = {}
    for group in parameter_groups(model, config, layer_id=layer_id, depth=12, no_decay=lambda n, p: p.ndim <= 1 or n in exempt):
        ours |= dict.fromkeys(group["names"], (group["lr_scale"], group["weight_decay"]))
    theirs = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.65, no_weight_decay_list=exempt, no_opt_scale=None)
    scales = {id(p): (group["lr_scale"], group["weight_decay"]) for group in theirs for p in group["params"]}
    assert len(ours) == 152
    for name, parameter in model.named_parameters():
        assert ours[name] == pytest.approx(scales[id(parameter)]), name


def test_every_trainable_parameter_is_in_one_group():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    model[0].bias.requires_grad_(False)
    groups = parameter_groups(model, OptimConfig(lr=1.0, weight_decay=0.1))
    found = sorted(name for group in groups for name in group["names"])
    assert found == ["0.weight", "1.bias", "1.weight"]
    assert {name: g["weight_decay"] for g in groups for name in g["names"]} == {"0.weight": 0.1, "1.bias": 0.0, "1.weight": 0.0}


def test_lars_equals_the_formula():
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    config = OptimConfig(name="lars", lr=0.5, momentum=0.9)
    optimizer = build_optimizer(parameter_groups(layer, config), config)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    momentum = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for _ in range(3):
        x = torch.randn(7, 5)
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        set_lr(optimizer, 0.5)
        optimizer.step()
        # LARS as MAE's linear probe uses it: trust coefficient 0.001 on weights, plain momentum on 1-D tensors.
        gradient = torch.autograd.functional.jacobian(lambda w, b, x=x: (x @ w.T + b).square().sum(), (weight, bias))
        trust = 0.001 * weight.norm() / gradient[0].norm()
        for value, own, step in ((weight, 0, gradient[0] * trust), (bias, 1, gradient[1])):
            momentum[own].mul_(0.9).add_(step)
            value.sub_(0.5 * momentum[own])
    assert torch.allclose(layer.weight, weight, atol=1e-6)
    assert torch.allclose(layer.bias, bias, atol=1e-6)


def test_linear_scaling():
    assert math.isclose(scaled_lr(1.5e-4, 4096), 2.4e-3)
