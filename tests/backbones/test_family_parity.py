"""Files of every family: the tokens after every block are those of another program's network with the same weights."""

from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import torch
from timm.models import vision_transformer as timm_vit

from backbones import reading
from backbones.families import identify
from backbones.source import open_source
from tests.backbones import family_samples as samples
from tests.backbones.family_samples import RECTANGLE, SIDE, Sample

SAMPLES = samples.light()
NATIVE = (SIDE, SIDE)


def pictures(size):
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(3))


def opened(tmp_path: Path, sample: Sample, name: str = "weights.pth"):
    path = tmp_path / name
    torch.save(sample.content, path)
    return open_source(str(path))


def compare(backbone: Any, sample: Sample, size: tuple[int, int]) -> None:
    images = pictures(size)
    expected = samples.tokens_of(sample.net(size), images, sample.blocks)
    with torch.no_grad():
        found = backbone.eval()(images, tuple(range(len(expected))), norm=False)
    for block, (features, tokens) in enumerate(zip(found, expected, strict=True)):
        assert tokens.std() > 0.1
        assert (features.tokens - tokens).abs().max() <= 1e-5, (block, (features.tokens - tokens).abs().max())


@pytest.mark.parametrize("name", SAMPLES)
def test_the_tokens_are_the_other_programs(tmp_path, name):
    sample = SAMPLES[name]
    backbone = opened(tmp_path, sample).build()
    for size in (NATIVE, RECTANGLE) if sample.other_size else (NATIVE,):
        compare(backbone, sample, size)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_family_is_known_and_every_tensor_accounted_for(tmp_path, name):
    sample = SAMPLES[name]
    source = opened(tmp_path, sample)
    found = cast(ModuleType, identify(reading.read(tmp_path / "weights.pth"))).__name__.rpartition(".")[2]
    assert (found, source.spec.method) == (sample.family, sample.method)
    ledger = source.ledger
    assert not ledger.missing and not ledger.unexpected and all(ledger.dropped.values())
    for name in sample.around:
        assert name in ledger.dropped


def test_the_final_norm_is_the_networks_or_noted_as_missing(tmp_path):
    with_norm, fine_tuned = opened(tmp_path, SAMPLES["MAE"]), opened(tmp_path, SAMPLES["MAE fine-tuned"], "tuned.pth")
    assert not any("norm=True" in note for note in with_norm.ledger.notes)
    assert any("norm=True changes nothing" in note for note in fine_tuned.ledger.notes)
    assert fine_tuned.ledger.dropped["fc_norm.weight"] == "norm after pooling, part of the classification head"
    net = SAMPLES["MAE"].net(NATIVE)
    with torch.no_grad():
        expected = cast(Any, net).forward_features(pictures(NATIVE))
        assert (with_norm.build().eval()(pictures(NATIVE))[0].tokens - expected).abs().max() <= 1e-5


MEANS = {"OpenAI CLIP": 0.48145466, "open_clip": 0.48145466, "AugReg": 0.5, "MAE": 0.485, "DINOv2": 0.485, "BEiT": 0.485}
MEANS |= {"timm EVA-02 tiny": 0.48145466, "EVA-02's own": 0.48145466, "timm DINOv3": 0.485}


@pytest.mark.parametrize(("name", "mean"), MEANS.items())
def test_mean_and_std_are_the_familys(tmp_path, name, mean):
    assert opened(tmp_path, SAMPLES[name]).spec.mean[0] == mean


def test_jax_arrays_in_an_npz_file_are_read_as_timm_reads_them(tmp_path):
    net = samples.vit()
    path = tmp_path / "weights.npz"
    np.savez(path, **samples.augreg_arrays(net.state_dict()))
    theirs = samples.vit(num_classes=5)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
        timm_vit._load_weights(theirs, str(path))
    source = open_source(str(path))
    assert source.spec.method == "supervised" and "head/kernel" in source.ledger.dropped
    sample = Sample("augreg", {}, lambda _size: theirs)
    compare(source.build(), sample, NATIVE)
    compare(source.build(), sample, RECTANGLE)


def test_the_small_network_of_moco_v3_has_its_twelve_heads(tmp_path):
    net = samples.vit(embed_dim=384, num_heads=12)
    source = opened(tmp_path, samples.plain("mocov3", net, prefix="module.base_encoder.", key="state_dict"))
    assert cast(Any, source.arch).num_heads == 12
    compare(source.build(), samples.plain("mocov3", net), NATIVE)


def test_the_teacher_of_a_full_file_is_chosen_by_its_key(tmp_path):
    teacher = SAMPLES["DINO teacher"]
    student = {f"module.{name}": tensor + 1 for name, tensor in teacher.tensors.items()}
    path = tmp_path / "checkpoint.pth"
    torch.save({"student": student, "teacher": teacher.tensors, "epoch": 3}, path)
    source = open_source(f"{path}#ckpt_key=teacher")
    assert source.spec.method == "dino"
    compare(source.build(), teacher, NATIVE)
