"""Checkpoint files that are broken or something else: one line each; and where in a file the weights are."""

import argparse
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from backbones import reading
from tests.backbones.hostile import refused


def test_C01_an_empty_file_is_called_empty(tmp_path):
    for name in ("x.pth", "x.safetensors"):
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, "empty file")


@pytest.mark.parametrize("part", [0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999, "less one byte"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_C02_a_cut_file_is_refused_at_every_length(tmp_path, saved, timm_state, kind, part):
    path = Path(saved(timm_state, f"x.{kind}", _use_new_zipfile_serialization=kind == "zip"))
    if kind == "safetensors":
        safetensors.torch.save_file(timm_state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: -1 if part == "less one byte" else int(len(whole) * part)])
    refused(path, "damaged")


def test_C03_a_web_page_is_called_one(tmp_path):
    for text in ("<!DOCTYPE html><title>404</title>", "\n <HTML><body>login", "<!doctype HTML>"):
        (tmp_path / "x.pth").write_text(text)
        refused(tmp_path / "x.pth", "HTML page")


def test_C03_a_git_lfs_pointer_is_called_one(tmp_path):
    (tmp_path / "x.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    refused(tmp_path / "x.pth", "git lfs pull")


@pytest.mark.timeout(20)
def test_C04_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "pipe", "a pipe, device or socket")
    refused("/dev/zero", "a pipe, device or socket")
    refused(tmp_path / "folder", "a folder without model.safetensors")
    refused(tmp_path / "missing.pth", "No such file")
    refused(tmp_path / "dangling", "No such file")
    refused(tmp_path / "loop", "[Ss]ymbolic links")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_C04_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"x")
    (tmp_path / "x.pth").chmod(0)
    refused(tmp_path / "x.pth", "Permission denied")


def test_C08_settings_in_the_text_of_a_program_stay_text(tmp_path, saved, timm_state):
    marker = tmp_path / "ran"
    text = f"import os; os.system('touch {marker}')"
    raw = reading.read(Path(saved({"state_dict": timm_state, "meta": {"config": text}})))
    assert set(raw.state) == set(timm_state) and not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_C09_the_settings_of_a_training_are_read_as_values(saved, timm_state, zipped):
    args = argparse.Namespace(lr=1e-3, model="vit_base_patch16")
    path = saved({"model": timm_state, "args": args, "epoch": 3}, _use_new_zipfile_serialization=zipped)
    raw = reading.read(Path(path))
    assert raw.settings == {"lr": 1e-3, "model": "vit_base_patch16"}
    assert set(raw.dropped) == {"args", "epoch"} and set(raw.state) == set(timm_state)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_ema", "teacher", "module"])
def test_C12_weights_are_found_under_the_usual_keys(saved, timm_state, key):
    raw = reading.read(Path(saved({"epoch": 3, key: timm_state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}})))
    assert set(raw.state) == set(timm_state) and set(raw.dropped) == {"epoch", "optimizer"}
    assert all(torch.equal(raw.state[name], tensor) for name, tensor in timm_state.items())


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "_orig_mod.module.", "module.encoder."])
def test_C12_prefixes_of_wrappers_are_taken_off(saved, timm_state, prefix):
    raw = reading.read(Path(saved({f"{prefix}{name}": tensor for name, tensor in timm_state.items()})))
    assert set(raw.state) == set(timm_state) and raw.prefix == prefix


def test_C12_two_sets_of_weights_are_not_chosen_between(saved, timm_state):
    refused(saved({"model": timm_state, "model_ema": timm_state}), r"several keys \(model, model_ema\)")


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), 3, {}, {"epoch": 3}, {"model": {}}, {1: torch.ones(1)}], ids=repr)
def test_a_file_without_named_tensors_is_refused(saved, content):
    refused(saved(content), "save model.state_dict")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_sparse_and_quantised_tensors_are_refused(saved):
    refused(saved({"a": torch.eye(3).to_sparse()}), "sparse or quantised")


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n" + b"x" * 600, b"hello", b"PK\x03\x04" + b"\0" * 100, b"\0" * 4096], ids=str
)
def test_files_of_another_kind_are_refused(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    refused(tmp_path / "x.pth", "damaged, cut or no checkpoint|damaged or cut")
