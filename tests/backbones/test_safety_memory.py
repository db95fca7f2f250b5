"""Large files are mapped: to look at one takes no memory for its tensors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from backbones.arch import VitArch
from backbones.zoo import vit

# 25 blocks of 12 * 512^2 numbers, 4 bytes each: 300 MiB.
LARGE = VitArch(embed_dim=512, depth=25, num_heads=8, patch_size=16, mlp_dim=2048)
MIB = 2**20

LOOK = """
import json, sys, threading, time
sys.path.insert(0, {root!r})
import torch
from backbones.source import open_source

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

def watch():
    while not done.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

torch.set_num_threads(1)
open_source("random:vit_demo_patch8").build()
for path in sys.argv[1:]:
    peak, done, before = [0], threading.Event(), anonymous()
    thread = threading.Thread(target=watch)
    thread.start()
    source = open_source(path)
    rows, sha256 = len(source.ledger.rows()), source.sha256
    done.set()
    thread.join()
    net = source.build()
    print(json.dumps([peak[0] - before, anonymous() - before, rows]))
    del source, net
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_looking_at_a_large_file_takes_no_memory_for_its_tensors(tmp_path):
    state = {name: torch.zeros(tensor.shape) for name, tensor in vit.weights_of(vit.empty(LARGE, vit.spec_of(LARGE))).items()}
    state["pos_embed"] += 1
    paths = [tmp_path / "zip.pth", tmp_path / "large.safetensors"]
    torch.save({"model": state}, paths[0])
    safetensors.torch.save_file(state, paths[1])
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", LOOK.format(root=root), *map(str, paths)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        opened, built, rows = json.loads(line)
        size = path.stat().st_size
        assert size > 300 * MIB and rows == len(state)
        assert opened < 100 * MIB
        # What is built is a copy, and one only; some of what was freed before may be used again.
        assert size / 2 < built < size + 100 * MIB
