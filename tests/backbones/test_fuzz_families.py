"""Files of every family, damaged or wrapped: each gives the features of the untouched file, or is refused in one line."""

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.source import Source, open_source
from mae_bench.core.errors import InputError
from tests.backbones import family_samples as samples
from tests.backbones.family_samples import SIDE, Sample

pytestmark = pytest.mark.slow

SAMPLES = samples.light()
# Networks that are published both with and without: nothing else in the file tells that these were left out.
OPTIONAL = {
    ("timm registers", "reg_token"),
    ("timm registers", "cls_token"),
    ("DINOv2 registers", "register_tokens"),
}
TOLERANCE = 1e-5
IN_BLOCKS = 3


def features(source: Source) -> list[Tensor]:
    images = torch.rand(1, 3, SIDE, SIDE + 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return [found.tokens for found in source.build().eval()(images, (0, -1), norm=False)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module", params=SAMPLES)
def subject(request, folder) -> tuple[str, Sample, list[Tensor]]:
    """Name, sample, and what the untouched file gives."""
    sample = SAMPLES[request.param]
    return request.param, sample, features(opened(folder, sample.content))


def opened(folder: Path, content: Mapping[str, Any]) -> Source:
    path = folder / f"{random.random()}.pth"
    torch.save(content, path)
    try:
        return open_source(str(path))
    finally:
        path.unlink()


def outcome(folder: Path, content: Mapping[str, Any], expected: list[Tensor]) -> str:
    """`same` or `refused`; anything else fails."""
    try:
        source = opened(folder, content)
    except InputError as error:
        assert "\n" not in str(error) and ".pth" in str(error)
        return "refused"
    ledger = source.ledger
    assert not ledger.missing and not ledger.unexpected
    found = features(source)
    assert [tokens.shape for tokens in found] == [tokens.shape for tokens in expected]
    worst = max((ours - theirs).abs().max().item() for ours, theirs in zip(found, expected, strict=True))
    assert worst <= TOLERANCE, f"loaded with other features, {worst}"
    return "same"


def chosen(name: str, sample: Sample) -> list[str]:
    """All tensors of the network outside its blocks, a few inside, and one beside the network."""
    keys = [sample.prefix + key for key in sample.state]
    inside = [key for key in keys if re.search(r"[._](layers|blocks|resblocks|layer|encoderblock)[._]\d", f".{key}")]
    few = random.Random(name).sample(inside, min(IN_BLOCKS, len(inside)))
    return [key for key in keys if key not in inside] + few + list(sample.around)[:1]


def wrapped(sample: Sample) -> dict[str, dict[str, Any]]:
    """What training programs put around the same tensors."""
    tensors = sample.tensors
    step = {"epoch": 3, "optimizer": {"state": {}, "param_groups": []}}
    return {
        "bare": tensors,
        "model": {"model": tensors, **step},
        "state_dict": {"state_dict": tensors, **step},
        "DDP": {"model": {f"module.{name}": tensor for name, tensor in tensors.items()}, **step},
        "compiled": {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()},
        "Lightning": {
            "state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()},
            "hyper_parameters": {"lr": 0.1},
            "pytorch-lightning_version": "2.5",
            **step,
        },
    }


def test_wrappers_change_nothing(folder, subject):
    _, sample, expected = subject
    for name, content in wrapped(sample).items():
        assert outcome(folder, content, expected) == "same", name


def test_an_average_beside_the_network_is_never_taken_in_silence(folder, subject):
    _, sample, expected = subject
    average = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in sample.tensors.items()}
    outcome(folder, {"model": sample.tensors, "model_ema": average}, expected)
    outcome(folder, {"state_dict": sample.tensors, "state_dict_ema": average}, expected)


def test_missing_tensors_are_noticed(folder, subject):
    name, sample, expected = subject
    refused = 0
    for key in chosen(name, sample):
        if (name, key.removeprefix(sample.prefix)) not in OPTIONAL:
            cut = {other: tensor for other, tensor in sample.tensors.items() if other != key}
            refused += outcome(folder, cut, expected) == "refused"
    assert refused > IN_BLOCKS / 2


def test_foreign_names_are_noticed(folder, subject):
    name, sample, expected = subject
    for key in random.Random(name).sample(chosen(name, sample), IN_BLOCKS):
        for new in (f"{key}_2", f"adapter.{key}"):
            outcome(folder, {(new if other == key else other): tensor for other, tensor in sample.tensors.items()}, expected)
    assert outcome(folder, {**sample.tensors, f"{sample.prefix}adapter.weight": torch.ones(3)}, expected) == "refused"


def test_other_shapes_are_noticed(folder, subject):
    name, sample, expected = subject
    for key in random.Random(name).sample(chosen(name, sample), IN_BLOCKS):
        tensor = sample.tensors[key]
        if tensor.ndim:
            for other in (torch.cat([tensor, tensor[..., :1]], dim=-1), tensor.unsqueeze(0)):
                outcome(folder, {**sample.tensors, key: other}, expected)


def test_numbers_that_are_none_are_refused(folder, subject):
    name, sample, expected = subject
    for key in random.Random(name).sample(chosen(name, sample), IN_BLOCKS):
        tensor = sample.tensors[key]
        outcome(folder, {**sample.tensors, key: tensor.to(torch.int64)}, expected)
        if tensor.is_floating_point():
            outcome(folder, {**sample.tensors, key: tensor * float("nan")}, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_give_the_features_of_what_they_hold(folder, subject, dtype):
    _, sample, _ = subject
    other = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in sample.tensors.items()}
    plain = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in other.items()}
    try:
        expected = features(opened(folder, plain))
    except InputError:
        # Rounded wavelengths, of which only those in bfloat16 are expected.
        return
    assert outcome(folder, other, expected) == "same"
