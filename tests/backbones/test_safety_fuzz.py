"""Damaged files of every kind: one line, or what the hash tells from the file that was meant.

MAE_BENCH_FUZZ=20000 tries that many files in all; the number here is what a few seconds allow.
"""

import os
import pickle
import random
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from backbones import reading
from mae_bench.core.errors import InputError

KINDS = ("zip", "legacy", "safetensors", "npz", "pickle")
FILES = int(os.environ.get("MAE_BENCH_FUZZ", "1000"))
SECONDS = 5
"""What one file may take of the processor; the largest claims to be terabytes."""


def write(kind: str, path: Path, state: dict[str, Tensor]) -> None:
    """A small file of a kind, with settings where it can have some."""
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    content = {"model": state, "epoch": 3, "args": Namespace(lr=1e-3), "score": np.float64(0.5)}
    if kind == "safetensors":
        safetensors.torch.save_file(state, path, {"format": "pt"})
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, allow_pickle=True, **arrays)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}, protocol=4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")


def bits(draw: random.Random, content: bytearray, place: int) -> None:
    content[place] ^= 1 << draw.randrange(8)


def some(draw: random.Random, content: bytearray, place: int) -> None:
    content[place : place + draw.randrange(1, 9)] = draw.randbytes(draw.randrange(9))


def large(draw: random.Random, content: bytearray, place: int) -> None:
    content[place : place + 8] = draw.choice([b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0" * 8, b"\0\0\0\0\0\1\0\0"])


def cut(draw: random.Random, content: bytearray, place: int) -> None:
    del content[place:]


def doubled(draw: random.Random, content: bytearray, place: int) -> None:
    content[place:place] = content[max(place - draw.randrange(1, 200), 0) : place]


EDITS: tuple[Callable[[random.Random, bytearray, int], None], ...] = (bits, bits, some, some, large, cut, doubled)


def damaged(draw: random.Random, whole: bytes) -> bytes:
    """A file with one to three edits, most of them where its structure is: at the beginning and at the end."""
    content = bytearray(whole)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        if not content:
            break
        end = min(len(content), 1500)
        place = draw.choice([draw.randrange(end), len(content) - 1 - draw.randrange(end), draw.randrange(len(content))])
        draw.choice(EDITS)(draw, content, place)
    return bytes(content)


@pytest.mark.parametrize("kind", KINDS)
def test_C22_damaged_files_end_in_one_line_or_in_another_hash(tmp_path, kind):
    state = {f"blocks.{number}.weight": torch.randn(3, 4) for number in range(3)}
    state["patch_embed.proj.weight"] = torch.randn(4, 3, 2, 2)
    path, draw = tmp_path / f"x.{kind}", random.Random(kind)
    write(kind, path, state)
    whole, expected = path.read_bytes(), reading.read(path).sha256
    refused = same = 0
    for number in range(FILES // len(KINDS)):
        content = damaged(draw, whole)
        path.unlink()
        path.write_bytes(content)
        start = time.process_time()
        try:
            raw = reading.read(path)
            values = {name: tensor.clone() for name, tensor in raw.state.items()}
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith(str(path))
        else:
            equal = values.keys() == state.keys() and all(torch.equal(values[name], state[name]) for name in state)
            same += equal
            assert raw.sha256 != expected or (content == whole and equal), number
        assert time.process_time() - start < SECONDS, number
    assert refused > 0.2 * (FILES // len(KINDS))
