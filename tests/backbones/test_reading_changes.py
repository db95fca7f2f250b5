"""Files that change while they are read, and headers that claim what is not so."""

import hashlib
import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from backbones import reading
from backbones.source import open_source
from backbones.zoo import vit
from mae_bench.core.errors import InputError
from tests.backbones.hostile import refused


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
