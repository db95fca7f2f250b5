"""Files with objects of other programs in them: named, and opened in full only by their hash."""

import functools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from backbones.source import open_source
from backbones.trusted import read_trusted
from backbones.zoo import vit
from mae_bench.core.errors import ConfigError, InputError
from tests.backbones.hostile import ARRAYS, RunsCommand, refused, sha256


def stand_in(monkeypatch, name: str) -> type:
    """A class of a program that is not installed here, or not needed."""
    module, _, attribute = name.rpartition(".")
    for end in range(1, module.count(".") + 1):
        parent = module.rsplit(".", end)[0]
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    found = ModuleType(module)
    kind = type(attribute, (dict,), {"__module__": module})
    setattr(found, attribute, kind)
    monkeypatch.setitem(sys.modules, module, found)
    return kind


@pytest.mark.parametrize(
    "name",
    [
        "mmengine.logging.history_buffer.HistoryBuffer",
        "yacs.config.CfgNode",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "lightning_stand_in.callbacks.ModelCheckpoint",
    ],
)
def test_C10_objects_of_training_programs_are_named_and_the_way_out_is_said(saved, timm_state, monkeypatch, name):
    kind = stand_in(monkeypatch, name)
    path = saved({"state_dict": timm_state, "message_hub": kind(a=1), "partial": functools.partial(int, "3")})
    message = refused(path, f"holds {name}, which is code or an object")
    assert f"mae-bench ckpt convert {path} {Path(path).stem}.safetensors --to timm --trust-pickle {sha256(path)}" in message


@pytest.mark.slow
def test_C10_a_trusted_file_gives_its_tensors(saved, timm_state, monkeypatch):
    """Classes that are not installed for the process that unpickles are stood in for."""
    kind = stand_in(monkeypatch, "a_program_nobody_has.Thing")
    path = saved({"state_dict": timm_state, "history": kind(a=1), "partial": functools.partial(int, "3"), "epoch": 3})
    raw = read_trusted(Path(path), sha256(path))
    assert set(raw.state) == set(timm_state) and raw.sha256 == sha256(path)
    assert all(torch.equal(raw.state[name], tensor) for name, tensor in timm_state.items())
    source = open_source(path, trust_pickle=sha256(path).upper())
    assert source.sha256 == sha256(path) and any(sha256(path) in note for note in source.ledger.notes)
    assert torch.equal(vit.weights_of(source.build())["cls_token"], timm_state["cls_token"])


def test_C10_a_whole_module_is_named(saved):
    refused(saved(torch.nn.Linear(2, 3)), r"holds torch\.nn\.modules\.linear\.Linear")


@pytest.mark.slow
def test_C10_a_whole_module_and_a_pickle_of_arrays_give_their_tensors_when_they_are_trusted(saved, pickled):
    path = saved(torch.nn.Linear(2, 3))
    assert set(read_trusted(Path(path), sha256(path)).state) == {"weight", "bias"}
    path = pickled({"model": ARRAYS, "thing": functools.partial(int, "3")})
    raw = read_trusted(path, sha256(path))
    assert all(np.array_equal(raw.state[name].numpy(), array) for name, array in ARRAYS.items())


@pytest.mark.slow
def test_C17_a_file_of_another_hash_is_not_unpickled(tmp_path, saved, timm_state):
    marker = tmp_path / "ran"
    path = saved({"model": timm_state, "x": RunsCommand(f"touch {marker}")})
    with pytest.raises(InputError, match=f"its SHA-256 is {sha256(path)}, not the trusted one; nothing of it was run"):
        read_trusted(Path(path), "0" * 64)
    with pytest.raises(ConfigError, match="64 hex digits are needed"):
        read_trusted(Path(path), sha256(path)[:16])
    assert not marker.exists()
    assert set(read_trusted(Path(path), sha256(path)).state) == set(timm_state)
    assert marker.exists()


@pytest.mark.slow
def test_a_trusted_file_that_is_damaged_is_one_line(saved, timm_state):
    path = Path(saved({"model": timm_state}, _use_new_zipfile_serialization=False))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be unpickled") as caught:
        read_trusted(path, sha256(path))
    assert "\n" not in str(caught.value)
