"""Pickles: arrays and plain values come out, whatever else is in them is named and not run."""

import argparse
import collections
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones import reading
from backbones.source import open_source
from backbones.zoo import vit
from tests.backbones.hostile import ARRAYS, RunsCommand, refused


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_C11_detectron2s_files_are_read_whatever_protocol_they_have(pickled, protocol):
    content = {"model": collections.OrderedDict(ARRAYS), "__author__": "someone", "score": np.float64(3.5), "best": np.int64(3)}
    raw = reading.read(pickled(content, protocol))
    assert set(raw.state) == set(ARRAYS) and set(raw.dropped) == {"__author__", "score", "best"}
    for name, array in ARRAYS.items():
        assert raw.state[name].numpy().dtype == array.dtype.newbyteorder("=") and np.array_equal(raw.state[name].numpy(), array)


def test_C11_a_file_of_python_2_is_read(pickled):
    """Its strings are bytes; written out by hand, since no Python of today writes it."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    data = struct.pack("<3f", 1, -2, 3)
    dtype = (
        b"cnumpy\ndtype\n" + text(b"f4") + b"K\x00K\x01\x87R(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01K\x03\x85" + dtype + b"\x89" + text(data) + b"tb"
    raw = reading.read(pickled(b"\x80\x02}" + text(b"model") + b"}" + text(b"x") + array + b"ss."))
    assert raw.state["x"].tolist() == [1, -2, 3]


def test_C11_the_backbone_of_a_file_of_arrays_is_built(pickled, timm_state):
    path = pickled({"model": {name: tensor.numpy() for name, tensor in timm_state.items()}, "__author__": "someone"})
    built = vit.weights_of(open_source(str(path)).build())
    assert all(torch.equal(built[name], tensor) for name, tensor in timm_state.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_values_in_torchs_files_are_values(saved, timm_state, zipped):
    """Best scores of Lightning and mmengine; arrays are tensors like any other."""
    args = argparse.Namespace(lr=np.float64(0.5), best=np.int64(3))
    content = {"model": timm_state, "args": args, "mean": np.ones(3), "score": np.float32(2)}
    raw = reading.read(Path(saved(content, _use_new_zipfile_serialization=zipped)))
    assert raw.settings == {"lr": 0.5, "best": 3} and set(raw.state) == set(timm_state)
    arrays = {name: tensor.numpy() for name, tensor in timm_state.items()}
    raw = reading.read(Path(saved({"model": arrays}, _use_new_zipfile_serialization=zipped)))
    assert all(torch.equal(raw.state[name], tensor) for name, tensor in timm_state.items())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_C06_a_command_in_a_pickle_is_named_and_not_run(tmp_path, pickled, protocol):
    marker = tmp_path / "ran"
    path = pickled({"model": ARRAYS, "x": RunsCommand(f"touch {marker}")}, protocol)
    refused(path, r"holds posix\.system, which is code")
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins.getattr", "builtins.eval", "operator.attrgetter", "numpy.load", "torch.load", "os.system"]
)
def test_names_that_reach_further_are_refused(pickled, name):
    module, _, attribute = name.rpartition(".")
    path = pickled(b"\x80\x04c" + f"{module}\n{attribute}\n".encode() + b".")
    refused(path, f"holds {name}, which is code")


@pytest.mark.parametrize(
    "content",
    [
        np.array([{}], dtype=object),
        np.array(["x"]),
        np.zeros(2, dtype=[("x", "f4")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.float64(3),
    ],
    ids=["objects", "text", "compound", "dates", "scalar"],
)
def test_arrays_of_anything_but_numbers_are_refused(pickled, content):
    refused(pickled(content), "damaged, cut or no checkpoint|holds a float, not named tensors")


def test_an_array_that_claims_more_than_it_has_is_refused(pickled):
    whole = pickle.dumps({"model": {"w": np.arange(200, dtype=np.float32)}}, protocol=4)
    assert whole.count(b"K\xc8\x85") == 1  # the shape (200,)
    refused(pickled(whole.replace(b"K\xc8\x85", b"K\xc9\x85")), "bytes do not fit its shape")


def test_classes_of_this_program_cannot_be_changed_by_a_file(pickled):
    """State for the class Namespace itself would be set on it, for everyone."""
    refused(pickled(b"\x80\x04cargparse\nNamespace\nN}\x8c\x07changedK\x01s\x86b."), "state for something that has none")
    assert not hasattr(argparse.Namespace, "changed")


class WithAttributes:
    """Pickles as a mapping whose methods are hidden by values."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        attributes = {"items": 3, "keys": "x", "get": None, "_metadata": {}}
        return collections.OrderedDict, (), attributes, None, iter(self.state.items())


def test_a_mapping_with_attributes_of_its_own_is_read_as_a_mapping(saved, timm_state, pickled):
    assert set(reading.read(Path(saved({"model": WithAttributes(timm_state)}))).state) == set(timm_state)
    assert set(reading.read(Path(saved(WithAttributes(timm_state)))).state) == set(timm_state)
    assert set(reading.read(pickled({"model": WithAttributes(ARRAYS)})).state) == set(ARRAYS)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_place_in_the_memo_that_claims_to_be_far_takes_no_memory(pickled):
    """Python's own unpickler makes a table of 8 bytes for each place before it."""
    path = pickled(b"\x80\x04]r" + struct.pack("<I", 2**31 - 1) + b".")
    code = f"""
import resource
from pathlib import Path
from backbones import reading
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    reading.read(Path({str(path)!r}))
except Exception as error:
    print(type(error).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, grown = done.stdout.split()
    assert name == "InputError" and int(grown) < 100_000
