"""Supervised and contrastive objectives, views, and every published recipe at full size."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from backbones.contract import BackboneSpec
from backbones.zoo import vit
from mae_bench.core import find
from mae_bench.core.errors import EnvironmentFault
from mae_bench.objectives import simclr, supervised
from mae_bench.objectives._classifier import Classifier, augmentation
from mae_bench.objectives._contrastive import Contrastive
from mae_bench.objectives._parts import to_input

ROOM = "mae_bench.objectives"
OBJECTIVES = find.names(ROOM)
ARCH = vit.VitArch(embed_dim=32, depth=2, num_heads=2, patch_size=8, mlp_dim=128, image_size=(32, 32))
SPEC = vit.spec_of(ARCH)


def backbone():
    return vit.assemble(ARCH, SPEC, vit.initial_weights(ARCH, 0))


def changed(config, **values):
    return config.model_copy(update=values)


def images(batch: int = 4, side: int = 32):
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_room_lists_the_objectives_only():
    assert OBJECTIVES == ["byol", "dino", "mae", "mocov3", "simclr", "supervised"]


@pytest.fixture(scope="module")
def large():
    """ViT-L without memory for its weights."""
    with torch.device("meta"):
        return vit.build("vit_large_patch16")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_recipe_is_built_at_full_size(name, large):
    if name not in ("mae", "supervised"):
        pytest.importorskip("lightly.loss")
    module = find.load(ROOM, name, what="objective")
    assert set(module.RECIPES) >= {"paper", "demo"}
    for recipe in module.RECIPES.values():
        with torch.device("meta"):
            model = module.build(large, recipe, 1000)
        assert model.backbone is large
        assert sum(parameter.numel() for parameter in model.parameters()) > 3e8


def test_mae_large_has_the_published_number_of_parameters(large):
    """329,541,888 elements in the released ViT-L with its decoder, positions included."""
    module = find.load(ROOM, "mae", what="objective")
    with torch.device("meta"):
        model = module.build(large, module.RECIPES["paper"], 0)
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == 329_541_888


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_supervised_loss_is_smoothed_cross_entropy(pool):
    model = Classifier(backbone(), changed(supervised.RECIPES["demo"], pool=pool, label_smoothing=0.1), 5)
    nn.init.normal_(model.head.weight)
    labels = torch.tensor([0, 4, 2, 2])
    loss = model({"images": images(), "labels": labels})["classification"]
    (features,) = model.backbone(to_input(images(), SPEC))
    pooled = features.tokens[:, 0] if pool == "cls" else features.tokens[:, 1:].mean(dim=1)
    logs = (pooled @ model.head.weight.T).log_softmax(dim=1)
    expected = -(0.9 * logs[range(4), labels] + 0.1 * logs.mean(dim=1)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_mixing_is_on_in_the_paper_recipe_and_follows_the_global_generator():
    torch.manual_seed(0)
    model = Classifier(backbone(), supervised.RECIPES["paper"], 5)
    batch = {"images": images(), "labels": torch.tensor([0, 1, 2, 3])}
    losses = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        losses.append(model(batch)["classification"].item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("policy", ["", "rand-m9-mstd0.5-inc1"])
def test_views_are_bytes_of_the_backbones_size(policy):
    view = augmentation(changed(supervised.RECIPES["paper"], rand_augment=policy), SPEC)
    found = view(images(1, 50)[0])
    assert found.shape == (3, 32, 32)
    assert found.dtype == torch.uint8


@pytest.mark.edge
def test_contrastive_loss_is_nt_xent():
    pytest.importorskip("lightly.loss")
    torch.manual_seed(0)
    config = changed(simclr.RECIPES["demo"], temperature=0.3)
    model = Contrastive(backbone(), config)
    views = torch.stack([images(), images().flip(0)], dim=1)
    loss = model(views)["contrast"]
    model.zero_grad()
    assert model(views)["log/feature_std"] > 0  # a sign of collapse, looked for now and then
    model.before_step(1, 100)
    assert list(model(views)) == ["contrast"]

    with torch.no_grad():  # the formula of arXiv 2002.05709, section 2.1, pair by pair
        (features,) = model.backbone(to_input(torch.cat([views[:, 0], views[:, 1]]), SPEC))
        points = functional.normalize(model.head(features.pool(config.pool)), dim=1)
    alike = (points @ points.T / 0.3).exp()
    terms = [-(alike[i, (i + 4) % 8] / (alike[i].sum() - alike[i, i])).log() for i in range(8)]
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


@pytest.mark.edge
def test_two_views_differ_and_a_frozen_projection_is_not_trained():
    pytest.importorskip("lightly.loss")
    torch.manual_seed(0)
    pair = simclr.sample(simclr.RECIPES["paper"], SPEC)(images(1, 50)[0], 0)
    assert pair.shape == (2, 3, 32, 32)
    assert pair.dtype == torch.uint8
    assert not torch.equal(pair[0], pair[1])
    model = Contrastive(backbone(), simclr.RECIPES["paper"])
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert not any("patch_embed" in name for name in trained)
    assert any("blocks.0" in name for name in trained)


def test_E01_without_lightly_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lightly", None)
    monkeypatch.setitem(__import__("sys").modules, "lightly.loss", None)
    with pytest.raises(EnvironmentFault, match=r"objective simclr needs lightly.*mae-bench\[contrastive\]"):
        Contrastive(backbone(), simclr.RECIPES["demo"])


def test_spec_is_what_views_are_sized_from():
    wide = BackboneSpec(**{**SPEC.__dict__, "image_size": (16, 48)})
    assert augmentation(supervised.RECIPES["demo"], wide)(images(1, 64)[0]).shape == (3, 16, 48)
