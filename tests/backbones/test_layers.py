"""Layer numbers of parameters inside models that wrap a backbone."""

import copy

import pytest
from torch import nn

from backbones.layers import find_backbone, layer_ids


class Wrapped(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.neck = nn.ModuleDict({"blocks": nn.Linear(3, 3)})
        self.model = nn.Module()
        self.model.backbone = nn.Sequential(backbone)
        self.head = nn.Linear(3, 3)


def test_names_inside_a_wrapper_get_the_backbones_numbers(make):
    backbone = make()
    model = Wrapped(backbone)
    layer_id, depth = layer_ids(model)
    assert depth == 3 and find_backbone(model) == ("model.backbone.0.", backbone)
    numbers = {name: layer_id(name) for name, _ in model.named_parameters()}
    for name, _ in backbone.named_parameters():
        assert numbers[f"model.backbone.0.{name}"] == backbone.layer_id(name)
    assert numbers["model.backbone.0.net.pos_embed"] == 0 and numbers["model.backbone.0.net.blocks.2.norm1.bias"] == 3
    assert numbers["head.weight"] == numbers["neck.blocks.weight"] == 4


def test_a_bare_backbone_is_found_too(make):
    backbone = make()
    assert find_backbone(backbone) == ("", backbone)
    assert layer_ids(backbone)[0]("net.blocks.0.norm1.weight") == 1


def test_a_frozen_teacher_does_not_count(make):
    student = make()
    teacher = copy.deepcopy(student).requires_grad_(False)
    assert find_backbone(nn.ModuleDict({"teacher": teacher, "student": student})) == ("student.", student)


def test_several_or_no_backbones_are_an_error(make):
    with pytest.raises(ValueError, match=r"one backbone is needed; backbones in it: a, b$"):
        find_backbone(nn.ModuleDict({"a": make(), "b": make()}))
    with pytest.raises(ValueError, match="backbones in it: none"):
        layer_ids(nn.Linear(2, 2))
