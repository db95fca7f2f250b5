"""BYOL, MoCo v3 and DINO: losses against the papers' formulas, teachers, views, signs of collapse."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from backbones.contract import DenseOptions
from backbones.positions import sincos_2d
from backbones.source import open_source
from backbones.zoo import vit
from mae_bench.core import find
from mae_bench.core.errors import ConfigError
from mae_bench.objectives import byol, dino, mocov3
from mae_bench.objectives._parts import kept, synchronised, to_input
from mae_bench.objectives._teacher import cosine, follow, health

pytest.importorskip("lightly.loss")
pytestmark = pytest.mark.edge

ARCH = vit.VitArch(embed_dim=32, depth=2, num_heads=2, patch_size=8, mlp_dim=128, image_size=(32, 32))
SPEC = vit.spec_of(ARCH)
SMALL = {"hidden_dim": 24, "output_dim": 16}


def backbone():
    return vit.assemble(ARCH, SPEC, vit.initial_weights(ARCH, 0))


def images(batch=4, side=32, seed=0):
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def made(module, **changes) -> Any:
    torch.manual_seed(0)
    config = module.RECIPES["demo"].model_copy(update=changes)
    return module.build(backbone(), config, 0)


def shaken(model):
    """Let student and teacher differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def pooled(network, pictures):
    return network(to_input(pictures, SPEC))[0].tokens[:, 1:].mean(dim=1)


def terms(model, views):
    """What student and teacher make of each view, each view in a batch of its own."""
    student, teacher = [], []
    for view in (views[:, 0], views[:, 1]):
        student.append(model.predictor(model.projector(pooled(model.backbone, view))))
        with torch.no_grad():
            teacher.append(model.teacher_projector(pooled(model.teacher_backbone, view)))
    return student, teacher


def test_byol_is_the_distance_of_normalised_vectors():
    model = shaken(made(byol, **SMALL))
    views = torch.stack([images(), images(seed=1)], dim=1)
    student, teacher = terms(model, views)
    expected = 0.0
    for said, told in ((student[0], teacher[1]), (student[1], teacher[0])):
        difference = said / said.norm(dim=1, keepdim=True) - told / told.norm(dim=1, keepdim=True)
        expected += difference.square().sum(dim=1).mean().item()
    assert model(views)["regression"].item() == pytest.approx(expected, rel=1e-5)


def test_moco_is_the_contrast_with_the_teachers_keys():
    model = shaken(made(mocov3, **SMALL, temperature=0.3))
    views = torch.stack([images(), images(seed=1)], dim=1)
    student, teacher = terms(model, views)
    expected = 0.0
    for said, told in ((student[0], teacher[1]), (student[1], teacher[0])):
        for i in range(4):
            alike = [torch.cosine_similarity(said[i], told[j], dim=0) / 0.3 for j in range(4)]
            expected += 2 * 0.3 * -(alike[i] - torch.stack(alike).logsumexp(0)).item() / 4
    assert model(views)["contrast"].item() == pytest.approx(expected, rel=1e-5)


def test_dino_is_the_cross_entropy_of_sharpened_outputs_and_the_centre_follows():
    model = shaken(made(dino, prototypes=20, local_crops=3))
    model.loss.center.normal_(generator=torch.Generator().manual_seed(2))
    model.temperature, centre = 0.05, model.loss.center.clone().flatten()
    large, small = torch.stack([images(), images(seed=1)], 1), torch.stack([images(side=16, seed=s) for s in (2, 3, 4)], 1)
    said = [model.head(pooled(model.backbone, view)) for crops in (large, small) for view in crops.unbind(1)]
    told = [model.teacher_head(pooled(model.teacher_backbone, view)).detach() for view in large.unbind(1)]
    losses = []
    for t, s in [(t, s) for t in range(2) for s in range(5) if t != s]:
        target = ((told[t] - centre) / 0.05).softmax(dim=1)
        losses.append(-(target * (said[s] / 0.1).log_softmax(dim=1)).sum(dim=1).mean())
    found = model({"large": large, "small": small})
    assert found["distillation"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    moved = 0.9 * centre + 0.1 * torch.cat(told).mean(dim=0)
    assert torch.allclose(model.loss.center.flatten(), moved, atol=1e-6)


@pytest.mark.parametrize("module", [byol, mocov3, dino], ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_teacher_starts_as_the_student_and_is_never_trained(module):
    model = made(module)
    student = dict(model.backbone.named_parameters())
    for name, parameter in model.teacher_backbone.named_parameters():
        assert torch.equal(parameter, student[name]) and not parameter.requires_grad
    assert all(not parameter.requires_grad for name, parameter in model.named_parameters() if "teacher" in name)


@pytest.mark.parametrize("module", [byol, mocov3, dino], ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_teacher_drops_no_path(module):
    torch.manual_seed(0)
    dropping = vit.assemble(ARCH, SPEC, vit.initial_weights(ARCH, 0), DenseOptions(drop_path=0.5))
    model = module.build(dropping, module.RECIPES["demo"], 0).train()
    assert not torch.equal(pooled(model.backbone, images(8)), pooled(model.backbone, images(8)))
    assert torch.equal(pooled(model.teacher_backbone, images(8)), pooled(model.teacher_backbone, images(8)))


def test_of_dino_the_teacher_is_kept_and_of_the_others_the_student():
    assert kept(shaken(model := made(dino))) is model.teacher_backbone
    assert all(kept(model := made(module)) is model.backbone for module in (byol, mocov3))


@pytest.mark.parametrize("module", [byol, mocov3], ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_patch_projection_is_frozen_in_every_kind_of_network(module):
    for frozen in (False, True):
        network = open_source("random:eva02_tiny_patch14").build()
        model = module.build(network, module.RECIPES["demo"].model_copy(update={"freeze_patch_projection": frozen}), 0)
        assert all(parameter.requires_grad is not frozen for parameter in model.backbone.net.patch_embed.parameters())


def test_batch_norms_of_heads_are_synchronised_between_gpus(monkeypatch):
    """Asked of the processes that have joined: torch has no such norm for CPUs."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for backend, kind in (("nccl", nn.SyncBatchNorm), ("gloo", nn.BatchNorm1d)):
        monkeypatch.setattr(torch.distributed, "get_backend", lambda backend=backend: backend)
        head: Any = synchronised(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
        assert type(head[1]) is kind


def test_momentum_grows_to_one_by_half_a_cosine():
    """1 - (1 - m) * (cos(pi k / K) + 1) / 2 (arXiv 2006.07733, section 3.3)."""
    found = [cosine(0.99, 1.0, step, 101) for step in (0, 50, 100)]
    assert found == pytest.approx([0.99, 0.995, 1.0])


def test_the_teacher_follows_and_its_temperature_grows():
    student, teacher = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = 0.9 * teacher.weight.detach() + 0.1 * student.weight.detach()
    follow(teacher, student, 0.9)
    assert torch.allclose(teacher.weight, expected)
    model = made(dino, epochs=10, teacher_temperature=0.07, teacher_temperature_start=0.04, teacher_temperature_epochs=5.0)
    found = []
    for step in (0, 25, 50, 99):
        model.before_step(step, 100)
        found.append(model.temperature)
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_the_prototypes_are_frozen_in_the_first_epoch():
    model = made(dino, epochs=10, last_layer_frozen_epochs=1.0, local_crops=0)
    batch = {"large": torch.stack([images(), images(seed=1)], 1)}
    sizes = []
    for step in (0, 9, 10):
        model.before_step(step, 100)
        model.zero_grad()
        model(batch)["distillation"].backward()
        sizes.append(model.head.last_layer.weight_v.grad.abs().sum().item())
    assert sizes[0] == sizes[1] == 0 < sizes[2]


def test_crops_are_bytes_of_whole_patches():
    cut = dino.sample(dino.RECIPES["paper"], SPEC)(images(1, 60)[0], 0)
    assert cut["large"].shape == (2, 3, 32, 32) and cut["small"].shape == (10, 3, 16, 16)
    assert cut["large"].dtype == cut["small"].dtype == torch.uint8
    batch = dino.collate([cut, cut])
    assert batch["small"].shape == (2, 10, 3, 16, 16)


def test_only_the_second_view_is_solarised():
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    config = byol.RECIPES["paper"].model_copy(update={"solarize": (0.0, 1.0), "jitter": 0.0, "blur": (0.0, 0.0)})
    first, second = byol.sample(config, SPEC)(white, 0)
    assert first.float().mean() == 255 and second.float().mean() == 0


def test_signs_of_collapse():
    generator = torch.Generator().manual_seed(0)
    spread = health(torch.randn(512, 16, generator=generator))
    assert spread["log/feature_std"].item() == pytest.approx(1.0, abs=0.05)
    assert spread["log/effective_rank"].item() == pytest.approx(16, abs=0.5)
    same = health(torch.randn(1, 16, generator=generator).expand(512, 16))
    assert same["log/feature_std"].item() == pytest.approx(0, abs=1e-5)
    assert same["log/effective_rank"].item() == pytest.approx(1, abs=0.01)
    assert math.isfinite(health(torch.zeros(4, 16))["log/effective_rank"].item())
    # Of a training that has diverged; its loss is what ends it.
    assert all(math.isnan(value.item()) for value in health(torch.tensor([[1.0, math.nan], [0.0, 1.0]])).values())


@pytest.mark.parametrize("name", ["byol", "mocov3", "dino"])
def test_what_depends_on_the_batch_is_not_split(name):
    assert find.load("mae_bench.objectives", name, what="objective").PER_IMAGE is False


def test_moco_keeps_its_patch_projection_random():
    model = mocov3.build(backbone(), mocov3.RECIPES["paper"].model_copy(update=SMALL), 0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any("patch_embed" in name for name in trained) and any("blocks.0" in name for name in trained)


def test_dinos_positions_are_learned_unless_they_are_to_stay():
    learned, fixed = made(dino, fixed_positions=False).backbone, made(dino, fixed_positions=True)
    assert learned.positions.requires_grad and not fixed.backbone.positions.requires_grad
    assert torch.equal(fixed.backbone.positions, sincos_2d(ARCH.embed_dim, ARCH.grid, num_prefix=1))
    assert torch.equal(fixed.teacher_backbone.positions, fixed.backbone.positions)
    assert not dino.RECIPES["paper"].fixed_positions
    with pytest.raises(ConfigError, match="no table of positions to fix; set fixed_positions=False"):
        eva = open_source("random:dinov3_small_patch16").build()
        dino.build(eva, dino.RECIPES["demo"], 0)
