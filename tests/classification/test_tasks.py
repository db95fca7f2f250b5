"""kNN, linear probe and fine-tuning, run whole on the smallest embedded data."""

import pytest
import torch

from backbones.source import open_source
from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from mae_bench.core.seeding import generator
from tasks.common.classifiers import FineTuned, FrozenProbe, Regularise
from tasks.handle import open_data
from tasks.suite import finetune, knn, linear, logistic, partial


@pytest.fixture(scope="module")
def data(tiny_data):
    return open_data(f"folder={tiny_data['folder']}")


@pytest.fixture(scope="module")
def source():
    return open_source("random:vit_demo_patch8")


SHORT = {
    "knn": {"k": 5},
    "linear": {"epochs": 2, "warmup_epochs": 0, "batch_size": 50},
    "finetune": {"epochs": 1, "batch_size": 50},
    "partial": {"epochs": 1, "batch_size": 50, "blocks": 1.5},
    "logistic": {"max_iter": 20},
}


@pytest.mark.parametrize("task", [knn, linear, finetune, partial, logistic], ids=lambda task: task.__name__.rpartition(".")[2])
def test_a_task_gives_a_share_of_right_answers_and_the_same_again(task, source, data, tmp_path):
    config = task.RECIPES["demo"].override(SHORT[task.__name__.rpartition(".")[2]])
    found = [task.evaluate(source, data, config, Run(tmp_path / name)) for name in "ab"]
    assert list(found[0]) == ["top1", "top5"]
    assert 0 <= found[0]["top1"] <= found[0]["top5"] <= 100
    assert found[0] == found[1]


def test_the_augmented_probe_trains_the_probe_alone(source, data, tmp_path):
    config = linear.RECIPES["paper"].override({"epochs": 1, "warmup_epochs": 0})
    found = linear.evaluate(source, data, config, Run(tmp_path))
    assert 0 <= found["top1"] <= 100
    state = torch.load(tmp_path / "ckpt" / "last" / "state.pt", weights_only=True)
    assert {name.partition(".")[0] for name in state["model"]} == {"probe"}


def test_frozen_means_frozen_and_in_eval_mode(source):
    probe = FrozenProbe(source.build(), "cls", 10, "cpu")
    probe.train()
    (backbone,) = probe._frozen
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD(probe.parameters(), lr=1.0)
    images = torch.randint(256, (4, 3, 64, 64), generator=generator("images"), dtype=torch.uint8)
    probe((images, torch.arange(4)))["loss"].backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_U03_more_neighbours_than_images(source, data, tmp_path):
    with pytest.raises(ConfigError, match=r"knn\.k=201 neighbours of 200 training images"):
        knn.evaluate(source, data, knn.Config(k=201), Run(tmp_path))


def test_image_size_must_fit_the_patches(source, data, tmp_path):
    with pytest.raises(ConfigError, match="no multiple of the patch size 8"):
        knn.evaluate(source, data, knn.Config(k=5, image_size=60), Run(tmp_path))


def test_probes_read_features_at_another_size(source, data, tmp_path):
    found = knn.evaluate(source, data, knn.Config(k=5, image_size=56), Run(tmp_path))
    assert 0 <= found["top1"] <= 100


def test_mixing_smooths_once_and_needs_no_smoothing_in_the_loss(source):
    regularise = Regularise(10, smoothing=0.1, mixup=0.8, cutmix=1.0, erasing=0.25, device="cpu")
    images, targets = regularise(torch.zeros(4, 3, 64, 64), torch.arange(4))
    assert regularise.smoothing == 0.0
    assert images.shape == (4, 3, 64, 64)
    assert torch.allclose(targets.sum(1), torch.ones(4))
    assert float(targets.min()) == pytest.approx(0.01)


def test_fine_tuning_starts_from_the_loss_of_chance(source):
    torch.manual_seed(0)
    regularise = Regularise(10, smoothing=0.0, mixup=0.0, cutmix=0.0, erasing=0.0, device="cpu")
    model = FineTuned(source.build(), 10, pool="mean", regularise=regularise)
    images = torch.randint(256, (4, 3, 64, 64), generator=generator("images"), dtype=torch.uint8)
    loss = model((images, torch.arange(4)))["loss"].detach()
    assert float(loss) == pytest.approx(2.302585, abs=1e-3)


def test_the_paper_recipe_fine_tunes(source, data, tmp_path):
    """With RandAugment, mixing and erasing on, as ImageNet runs have them."""
    config = finetune.RECIPES["paper"].override({"epochs": 1, "warmup_epochs": 0, "batch_size": 41})
    found = finetune.evaluate(source, data, config, Run(tmp_path))
    assert 0 <= found["top1"] <= 100
