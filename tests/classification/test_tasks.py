"""kNN, linear probe and fine-tuning, run whole on the smallest embedded data."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from backbones.contract import normalise
from backbones.source import open_source
from mae_bench.core.errors import ConfigError
from mae_bench.core.run import Run
from mae_bench.core.seeding import generator
from tasks.common.accuracy import accuracy, ranked
from tasks.common.classifiers import FineTuned, FrozenProbe, Regularise
from tasks.handle import open_data
from tasks.suite import finetune, knn, linear, logistic, partial

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("task", [knn, logistic, linear, finetune, partial], ids=lambda task: task.__name__.rpartition(".")[2])
def test_features_that_tell_images_apart_are_used(task, source, colours, tmp_path):
    """Three colours; constant features would give 33 %."""
    config = {
        "knn": knn.Config(k=3, pool="mean"),
        "linear": linear.RECIPES["demo"].override({"epochs": 30, "warmup_epochs": 0, "crop_ratio": 1.0}),
        "logistic": logistic.RECIPES["demo"],
        "finetune": finetune.RECIPES["demo"].override({"epochs": 6, "batch_size": 8}),
        "partial": partial.RECIPES["demo"].override({"epochs": 6, "batch_size": 8}),
    }[task.__name__.rpartition(".")[2]]
    found = task.evaluate(source, open_data(f"folder={colours}"), config, Run(tmp_path))
    assert list(found) == ["top1"]  # five classes or fewer have no top5
    assert found["top1"] > 85


def test_top1_and_top5_are_those_of_an_independent_count():
    scores = torch.randn(500, 12, generator=generator("scores"))
    truth = torch.randint(12, (500,), generator=generator("truth"))
    order = np.argsort(-scores.numpy(), axis=1)
    top1 = 100 * np.mean([row[0] == label for row, label in zip(order, truth.numpy(), strict=True)])
    top5 = 100 * np.mean([label in row[:5] for row, label in zip(order, truth.numpy(), strict=True)])
    assert accuracy(ranked(scores), truth, 12) == {"top1": pytest.approx(top1), "top5": pytest.approx(top5)}
    assert top5 == pytest.approx(100 * top_k_accuracy_score(truth.numpy(), scores.numpy(), k=5))


def test_knn_counts_what_an_independent_count_does(source, colours, tmp_path):
    data = open_data(f"folder={colours}")
    found = knn.evaluate(source, data, knn.Config(k=3, also_k=(1,)), Run(tmp_path))
    backbone = source.build().eval()
    features = {}
    for which in ("train", "val"):
        split = data.split(which)
        pictures = [
            split.image(index).resize((54, 54), Image.Resampling.BICUBIC).crop((3, 3, 51, 51)) for index in range(len(split))
        ]
        pixels = torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in pictures]).float() / 255
        with torch.no_grad():
            (tokens,) = backbone(normalise(pixels, backbone.spec))
        features[which] = tokens.tokens[:, 0].numpy()
    nearest = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(features["train"], data.split("train").labels)
    assert found["top1_k1"] == pytest.approx(100 * nearest.score(features["val"], data.split("val").labels))


@pytest.mark.parametrize("task", [knn, linear, logistic], ids=lambda task: task.__name__.rpartition(".")[2])
def test_a_random_network_is_that_of_the_seed(task, source, colours, tmp_path, monkeypatch):
    seeds = []
    whole = type(source).build
    monkeypatch.setattr(type(source), "build", lambda self, *words, seed=0: seeds.append(seed) or whole(self, *words, seed=seed))
    config = {"knn": knn.Config(k=3), "linear": linear.RECIPES["paper"].override({"epochs": 1, "warmup_epochs": 0})}
    chosen = config.get(task.__name__.rpartition(".")[2], logistic.RECIPES["demo"].override({"max_iter": 2}))
    task.evaluate(source, open_data(f"folder={colours}"), chosen, Run(tmp_path, seed=7))
    assert seeds == [7]


@pytest.mark.parametrize(
    "changes", [{"batch_size": 6, "accumulate": 2}, {"batch_size": 7}, {"batch_size": 1000, "accumulate": 3}]
)
def test_mixing_has_whole_pairs_in_every_micro_batch(source, colours, tmp_path, changes):
    config = finetune.RECIPES["paper"].override({"epochs": 1, "warmup_epochs": 0, **changes})
    assert 0 <= finetune.evaluate(source, open_data(f"folder={colours}"), config, Run(tmp_path))["top1"] <= 100


@pytest.mark.parametrize(
    ("changes", "message"), [({"batch_size": 1}, "at least 2"), ({"batch_size": 7, "accumulate": 4}, "accumulate=4")]
)
def test_a_batch_without_a_pair_is_refused(source, colours, tmp_path, changes, message):
    config = finetune.RECIPES["paper"].override({"epochs": 1, "warmup_epochs": 0, **changes})
    with pytest.raises(ConfigError, match=message):
        finetune.evaluate(source, open_data(f"folder={colours}"), config, Run(tmp_path))


def test_more_blocks_than_there_are(source, colours, tmp_path):
    with pytest.raises(ConfigError, match=r"partial\.blocks=4\.5 of a network with 4 blocks"):
        partial.evaluate(source, open_data(f"folder={colours}"), partial.Config(blocks=4.5), Run(tmp_path))


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (finetune, {"rand_augment": "foo"}, "no RandAugment policy"),
        (finetune, {"crop_scale": "[-1, 1]"}, "crop_scale"),
        (finetune, {"crop_scale": "[1.0, 0.2]"}, "smaller"),
        (linear, {"crop_scale": "[0.5, 0.1]"}, "smaller"),
        (linear, {"rates": "4"}, "cached"),
        (linear, {"cached": "true", "flip": "0"}, "no effect"),
        (knn, {"also_k": "[0]"}, "also_k"),
        (partial, {"blocks": "0.3"}, "blocks"),
        (logistic, {"held_out": "1.0"}, "held_out"),
    ],
)
def test_U03_settings_that_cannot_be_meant_are_refused(task, changes, message):
    with pytest.raises(ConfigError, match=message):
        task.RECIPES["paper"].override(changes)


def test_the_learning_rate_is_chosen_on_images_held_out(source, colours, tmp_path):
    config = linear.RECIPES["cached"].override({"epochs": 20, "warmup_epochs": 0, "pool": "mean", "rates": 4})
    linear.evaluate(source, open_data(f"folder={colours}"), config, Run(tmp_path))
    found = json.loads((tmp_path / "rates.json").read_text())
    rates = [row["base_lr"] for row in found["rates"]]
    assert rates == pytest.approx([100.0, 31.6, 9.9856, 3.1554496])
    best = max(row["held_out_top1"] for row in found["rates"])
    assert found["chosen"] == next(row["base_lr"] for row in found["rates"] if row["held_out_top1"] == best)
    assert found["held_out_images"] == 3  # one of the eight of each class


def test_a_rate_far_too_large_spoils_no_other(source, colours, tmp_path):
    config = linear.RECIPES["cached"].override({"epochs": 60, "warmup_epochs": 0, "pool": "mean", "base_lr": 1e6, "rates": 10})
    found = linear.evaluate(source, open_data(f"folder={colours}"), config, Run(tmp_path))
    assert found["top1"] > 85


def test_the_penalty_is_searched_as_clip_does(source, colours, tmp_path):
    config = logistic.Config(pool="mean", max_iter=30)
    logistic.evaluate(source, open_data(f"folder={colours}"), config, Run(tmp_path))
    found = json.loads((tmp_path / "penalties.json").read_text())
    exponents = [math.log10(row["penalty"]) for row in found["penalties"]]
    assert {-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0} <= {round(value, 6) for value in exponents}
    assert min(after - before for before, after in pairwise(exponents)) == pytest.approx(1 / 8)
    assert len(exponents) <= 7 + 2 * 4


def test_U03_more_neighbours_than_images(source, data, tmp_path):
    with pytest.raises(ConfigError, match=r"knn\.k=201 neighbours of 200 training images"):
        knn.evaluate(source, data, knn.Config(k=201), Run(tmp_path))


@pytest.mark.parametrize(
    ("task", "recipe"), [(knn, "paper"), (linear, "paper"), (linear, "cached"), (logistic, "paper"), (finetune, "paper")]
)
def test_a_class_token_that_is_not_there(task, recipe, source, colours, tmp_path):
    without = replace(source, spec=replace(source.spec, num_prefix_tokens=0))
    config = task.RECIPES[recipe].override({"pool": "cls", **({"k": 3, "also_k": "[]"} if task is knn else {})})
    with pytest.raises(ConfigError, match="pool=cls needs a class token, and vit_demo_patch8 has none; set pool=mean"):
        task.evaluate(without, open_data(f"folder={colours}"), config, Run(tmp_path))


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
