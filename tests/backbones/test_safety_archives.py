"""Files that are archives, and checkpoints in several files."""

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from backbones import reading
from backbones.source import open_source
from backbones.zoo import vit
from mae_bench.core.errors import InputError

ARRAYS = {
    "embedding/kernel": np.arange(24, dtype=np.float32).reshape(2, 2, 3, 2),
    "Transformer/encoderblock_0/bias": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(3, dtype=">f4"),
    "step": np.array(7),
}


def refused(path, match) -> None:
    with pytest.raises(InputError, match=match) as caught:
        reading.read(Path(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_the_arrays_of_jax_are_read_by_their_names(tmp_path, write):
    write(tmp_path / "x.npz", **ARRAYS, text=np.array("hello"))
    raw = reading.read(tmp_path / "x.npz")
    assert set(raw.state) == set(ARRAYS) and raw.dropped == {"text": "not a tensor"}
    assert all(np.array_equal(raw.state[name].clone().numpy(), array) for name, array in ARRAYS.items())


def test_objects_among_arrays_are_not_unpickled(tmp_path):
    class Runs:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    np.savez(tmp_path / "x.npz", **ARRAYS, thing=np.array([Runs()], dtype=object))
    assert reading.read(tmp_path / "x.npz").dropped == {"thing": "not a tensor"}
    assert not (tmp_path / "ran").exists()


def test_C20_arrays_that_claim_more_than_the_file_holds_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * 10_000_000)
    refused(tmp_path / "bomb.npz", "claims to hold 20 times its own size")
    np.savez(tmp_path / "shape.npz", a=np.zeros(4, np.float32))
    whole = (tmp_path / "shape.npz").read_bytes()
    (tmp_path / "shape.npz").write_bytes(whole.replace(b"'shape': (4,), ", b"'shape':(999,),"))
    refused(tmp_path / "shape.npz", "damaged, cut or no checkpoint")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_C02_a_cut_archive_of_arrays_is_refused(tmp_path, part):
    np.savez(tmp_path / "x.npz", **ARRAYS)
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: int(len(whole) * part)])
    refused(tmp_path / "x.npz", "damaged or cut file")


@pytest.mark.filterwarnings("ignore:.torch\\.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch\\.jit:FutureWarning")
def test_a_torchscript_archive_is_called_one_with_the_way_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("x/data.pkl", "x/code/__torch__.py", "x/constants.pkl", "x/version"):
            archive.writestr(name, b"3")
    refused(tmp_path / "x.pt", r"a TorchScript archive, which is a program; .*torch\.jit\.load\(FILE\)\.state_dict\(\)")


def test_C19_names_that_stand_twice_in_a_header_are_refused(tmp_path):
    entry = b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    header = b"{" + entry + b"," + entry + b"}"
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    refused(tmp_path / "x.safetensors", "damaged safetensors file .'a' is in it twice")


@pytest.fixture
def sharded(tmp_path, timm_state):
    """A checkpoint in two files with their index; gives the index's path."""
    names = sorted(timm_state)
    places = {name: f"model-0000{1 + (number % 2)}-of-00002.safetensors" for number, name in enumerate(names)}
    for place in set(places.values()):
        safetensors.torch.save_file({name: timm_state[name] for name in names if places[name] == place}, tmp_path / place)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_a_checkpoint_in_several_files_is_one(sharded, timm_state):
    source = open_source(str(sharded.parent))
    assert source.name == sharded.parent.name and source.spec.depth == 3
    assert all(torch.equal(tensor, timm_state[name]) for name, tensor in vit.weights_of(source.build()).items())
    assert open_source(str(sharded)).sha256 == source.sha256
    shard = sharded.with_name("model-00002-of-00002.safetensors")
    with shard.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert open_source(str(sharded)).sha256 != source.sha256
    with pytest.raises(InputError, match=r"00002-of-00002\.safetensors: changed while it was read"):
        source.build()


@pytest.mark.parametrize("place", ["../x.safetensors", "/etc/passwd", "x.bin", "..", 3])
def test_an_index_that_leads_elsewhere_is_refused(sharded, place):
    sharded.write_text(json.dumps({"weight_map": {"cls_token": place}}))
    refused(sharded, "no weight_map of tensors to files beside it")


def test_an_index_and_files_that_differ_are_refused(sharded):
    content = json.loads(sharded.read_text())
    del content["weight_map"]["cls_token"]
    sharded.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"not the tensors that model\.safetensors\.index\.json says it has"):
        reading.read(sharded)
    sharded.with_name("model-00001-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"00001-of-00002\.safetensors: No such file"):
        reading.read(sharded)
