"""Checkpoint files with code in them: it is named and not run."""

import argparse
import collections
import functools
import io
import pickle
import tarfile
from pathlib import Path

import pytest
import torch

from tests.backbones.hostile import RunsCommand, refused


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
