"""What is trained, what is frozen, and several heads at once."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from backbones.source import open_source
from mae_bench.core.optim import OptimConfig, build_optimizer, parameter_groups, set_lr
from mae_bench.core.seeding import generator, seed_host
from tasks.common.classifiers import FineTuned, Heads, PartlyTuned, Probe, Regularise, head_number
from tasks.common.regression import fit


@pytest.fixture(scope="module")
def source():
    return open_source("random:vit_demo_patch8")


@pytest.fixture(scope="module")
def images():
    return torch.randint(256, (4, 3, 48, 48), generator=generator("images"), dtype=torch.uint8)


def plain():
    return Regularise(10, smoothing=0.0, mixup=0.0, cutmix=0.0, erasing=0.0, device="cpu")


def test_heads_trained_together_are_those_trained_one_by_one():
    """LARS adapts to the norm of each head: together and alone have to give the same weights."""
    random = generator("features")
    features, labels = torch.randn(64, 12, generator=random).double(), torch.randint(5, (64,), generator=random)
    config = OptimConfig(name="lars", lr=20.0, layer_decay=0.5)
    torch.manual_seed(0)
    heads = Heads(12, 5, 3).double()
    start = heads.weights[0].detach().clone()
    ladder = head_number(heads)
    assert ladder is not None
    groups = parameter_groups(heads, config, layer_id=lambda name: 1 - ladder(name))
    run(heads, build_optimizer(groups, config), config.lr, features, labels)
    for number, rate in enumerate((20.0, 10.0, 5.0)):
        probe = Probe(12, 5).double()
        probe.linear.weight.data.copy_(start)
        alone = OptimConfig(name="lars", lr=rate)
        run(probe, build_optimizer(parameter_groups(probe, alone), alone), rate, features, labels)
        assert torch.allclose(heads.weights[number], probe.linear.weight, atol=1e-5)
        assert torch.allclose(heads.biases[number], probe.linear.bias, atol=1e-5)
        assert torch.allclose(heads.eval().logits(features)[:, number], probe.eval().logits(features), atol=1e-4)
    assert not torch.allclose(heads.weights[0], heads.weights[1], atol=1e-3)


def run(model: nn.Module, optimizer: torch.optim.Optimizer, lr: float, features: torch.Tensor, labels: torch.Tensor):
    model.train()
    for _ in range(10):
        set_lr(optimizer, lr)
        model((features, labels))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_everything_trainable_has_a_gradient(source, images, pool):
    """A process group waits for each; a parameter that nothing reads would hang it."""
    model = FineTuned(source.build(), 10, pool=pool, regularise=plain()).train()
    model.head.weight.data.normal_(generator=generator("head"))
    model((images, torch.arange(4)))["loss"].backward()
    without = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert not without
    # The mean has a norm of its own in the place of the pretrained one, the class token keeps that (mae `models_vit.py`).
    assert ("norm.weight" in dict(model.named_parameters())) == (pool == "mean")
    assert model.backbone.get_parameter("net.norm.weight").requires_grad == (pool == "cls")


def test_the_class_token_is_classified_after_the_pretrained_norm(source, images):
    model = FineTuned(source.build(), 10, pool="cls", regularise=plain()).eval()
    model.head.weight.data.normal_(generator=generator("head"))
    pretrained = source.build().eval()
    from tasks.common.features import pixels

    (features,) = pretrained(pixels(images, pretrained), norm=True)
    assert torch.allclose(model.logits(images), model.head(features.pool("cls")), atol=1e-5)


def trained_names(model: PartlyTuned) -> set[str]:
    return {name.removeprefix("backbone.net.") for name, value in model.named_parameters() if value.requires_grad}


HEAD = {"norm.weight", "norm.bias", "head.weight", "head.bias"}


def test_half_a_block_is_its_mlp(source):
    model = PartlyTuned(source.build(), 10, pool="mean", regularise=plain(), blocks=0.5)
    parts = {f"blocks.3.{part}.{kind}" for part in ("norm2", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")}
    assert trained_names(model) == HEAD | parts


@pytest.mark.parametrize(
    ("blocks", "whole", "half"), [(0.0, set(), None), (1.5, {3}, 2), (2.0, {2, 3}, None), (4.0, {0, 1, 2, 3}, None)]
)
def test_the_last_blocks_are_trained(source, blocks, whole, half):
    model = PartlyTuned(source.build(), 10, pool="mean", regularise=plain(), blocks=blocks)
    names = trained_names(model) - HEAD
    assert {int(name.split(".")[1]) for name in names} == whole | ({half} if half is not None else set())
    everything = {name.removeprefix("backbone.net.") for name, _ in model.named_parameters()}
    for block in whole:
        assert {name for name in everything if name.startswith(f"blocks.{block}.")} <= names


def test_what_is_frozen_has_no_stochastic_depth_and_never_moves(source, images):
    from backbones.contract import DenseOptions

    backbone = source.build(DenseOptions(drop_path=0.5))
    model = PartlyTuned(backbone, 10, pool="mean", regularise=plain(), blocks=1.5).train()
    in_train_mode = {name for name, module in backbone.named_modules() if module.training}
    assert {"net.blocks.3", "net.blocks.3.drop_path1", "net.blocks.2.drop_path2"} <= in_train_mode
    frozen = ("net.patch_embed", "net.blocks.0", "net.blocks.1", "net.blocks.2.attn", "net.blocks.2.drop_path1")
    assert not any(name.startswith(frozen) for name in in_train_mode)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    model.head.weight.data.normal_(generator=generator("head"))
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    for number in range(3):
        seed_host("step", number)
        model((images, torch.arange(4)))["loss"].backward()
        optimizer.step()
    moved = {
        name.removeprefix("backbone.net.") for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }
    assert moved == trained_names(model)
    assert not any(module.training for module in model.eval().modules())


def test_regression_is_scikit_learns_and_passes_over_absent_classes():
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, 6))
    classes = np.repeat([0, 1, 3], 40)
    features = (centres[classes] + random.normal(size=(120, 6))).astype(np.float32)
    peer = LogisticRegression(C=10.0, max_iter=500).fit(features, classes)
    found = fit(torch.from_numpy(features), torch.from_numpy(classes), penalty=0.1, max_iter=500)
    scores = found.scores(torch.from_numpy(features), 4)
    assert found.converged and (scores[:, 2] == -torch.inf).all()
    assert np.array_equal(scores.argmax(1).numpy(), peer.predict(features))


def test_regression_of_two_classes_and_of_too_few_iterations(caplog):
    features = torch.randn(60, 4, generator=generator("two"))
    classes = (features[:, 0] > 0).long()
    assert torch.equal(fit(features, classes, penalty=1e-3, max_iter=500).scores(features, 2).argmax(1), classes)
    assert not fit(features, classes, penalty=1e-3, max_iter=1).converged
    assert "has not converged in 1 iterations" in caplog.text
