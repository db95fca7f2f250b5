"""Checkpoint files that are broken, hostile or something else: one line each, and no code of theirs is run."""

import argparse
import collections
import functools
import hashlib
import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from backbones import reading
from backbones.source import open_source
from backbones.zoo import vit
from mae_bench.core.errors import InputError


class RunsCommand:
    """Pickles as a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        reading.read(Path(path))
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path)) and caught.value.exit_code == 3
    return message


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


def test_C05_a_command_in_a_zip_file_is_named_and_not_run(tmp_path, saved, timm_state):
    marker = tmp_path / "ran"
    path = saved({**timm_state, "extra": RunsCommand(f"touch {marker}")})
    refused(path, r"holds (posix|nt)\.system, which is code")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_C06_a_command_in_older_formats_is_named_and_not_run(tmp_path, saved, timm_state, protocol):
    marker = tmp_path / "ran"
    legacy = saved({"model": timm_state, "x": RunsCommand(f"touch {marker}")}, _use_new_zipfile_serialization=False)
    plain = tmp_path / "plain.pkl"
    plain.write_bytes(pickle.dumps(RunsCommand(f"touch {marker}"), protocol=protocol))
    for path in (legacy, plain):
        message = refused(path, "holds|no checkpoint")
        assert protocol == 4 or "posix.system" in message
    assert not marker.exists()


def test_C06_a_command_in_a_tar_is_refused_and_not_run(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "x.pt"
    content = pickle.dumps(RunsCommand(f"touch {marker}"))
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    refused(path, "no checkpoint")
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_C07_a_command_before_a_corrupt_tail_is_not_run(tmp_path, saved, zipped):
    marker = tmp_path / "ran"
    path = Path(saved({"x": RunsCommand(f"touch {marker}"), "y": torch.ones(64)}, _use_new_zipfile_serialization=zipped))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"touch") + 200] + b"\xff" * 64)
    refused(path, "damaged|holds")
    assert not marker.exists()


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


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (functools.partial(int, "3"), "functools.partial"),
        (collections.UserDict(a=1), "collections.UserDict"),
        (Path("x"), r"pathlib\.\w*Path"),
        (argparse.ArgumentParser, "argparse.ArgumentParser"),
    ],
    ids=["partial", "UserDict", "Path", "class"],
)
def test_C10_objects_of_other_programs_are_named_with_the_way_out(saved, timm_state, thing, name):
    path = saved({"model": timm_state, "hyper_parameters": thing})
    message = refused(path, f"holds {name}")
    assert "torch.save(model.state_dict(), PATH)" in message


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


def test_C18_what_is_hashed_is_what_is_loaded(tmp_path, saved, timm_state, monkeypatch):
    """The file is swapped for another one after it was hashed."""
    path = Path(saved(timm_state))
    other = Path(saved({name: torch.zeros_like(tensor) for name, tensor in timm_state.items()}, "other.pth"))
    expected = reading.read(path).sha256
    torch_load = torch.load

    def swap_and_load(*args, **kwargs):
        other.replace(path)
        return torch_load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", swap_and_load)
    raw = reading.read(path)
    assert raw.sha256 == expected
    assert all(torch.equal(raw.state[name], tensor) for name, tensor in timm_state.items())


def test_C18_a_file_written_while_it_is_read_is_refused(saved, timm_state, monkeypatch):
    path = Path(saved(timm_state))
    torch_load = torch.load

    def load_and_write(*args, **kwargs):
        content = torch_load(*args, **kwargs)
        with path.open("ab") as file:
            file.write(b"more")
        return content

    monkeypatch.setattr(torch, "load", load_and_write)
    refused(path, "changed while it was read")


@pytest.mark.parametrize("change", ["written", "cut", "grown"])
def test_C18_a_file_that_changed_since_it_was_opened_builds_nothing(saved, timm_state, change):
    """Its tensors are mapped: what is checked must be what is built."""
    path = Path(saved(timm_state))
    source, whole = open_source(str(path)), path.read_bytes()
    other = {"written": b"\0" * len(whole), "cut": whole[:1000], "grown": whole + b"x"}[change]
    with path.open("r+b") as file:
        file.write(other)
        file.truncate()
    os.utime(path)
    for use in (source.build, lambda: source.sha256):
        with pytest.raises(InputError, match="changed while it was read"):
            use()


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_C18_a_file_that_is_replaced_or_removed_stays_what_was_opened(tmp_path, saved, timm_state, change):
    path = Path(saved(timm_state))
    source, expected = open_source(str(path)), hashlib.sha256(path.read_bytes()).hexdigest()
    if change == "replaced":
        Path(saved({name: torch.zeros_like(tensor) for name, tensor in timm_state.items()}, "other.pth")).replace(path)
    else:
        path.unlink()
    assert source.sha256 == expected
    assert torch.equal(vit.weights_of(source.build())["cls_token"], timm_state["cls_token"])


@pytest.mark.parametrize("length", [2**63 - 1, 2**40, 99_999_999])
def test_C19_a_header_that_claims_to_be_huge_is_refused(tmp_path, length):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", length) + b'{"a":{}}')
    refused(tmp_path / "x.safetensors", "damaged or cut safetensors file")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,8]}}',
        b"{not json",
    ],
    ids=["overlap", "shape", "no JSON"],
)
def test_C19_headers_that_cannot_be_are_refused(tmp_path, header):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 12)
    refused(tmp_path / "x.safetensors", "damaged or cut safetensors file")


def test_C20_a_tensor_that_claims_more_than_the_file_holds_is_refused(saved):
    refused(saved({"a": torch.zeros(1).expand(2**40)}), "claims 1099511627776 numbers")


def test_C20_a_compressed_archive_is_refused(tmp_path, saved):
    source = Path(saved({"a": torch.zeros(1000)}))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    refused(tmp_path / "x.pth", "compressed")


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
