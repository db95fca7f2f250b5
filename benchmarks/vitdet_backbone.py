"""ViTDet's backbone against Detectron2's own ViT on the same weights: CPU time and peak memory, forwards and backwards.

    python benchmarks/vitdet_backbone.py [--side 512] [--arch base] [--blocks 12] [--rounds 5] [--no-rel-pos] [--only infer]

One thread, fp32, batch 1, windows of 14 but in four blocks, relative positions. `--blocks 3` is a quarter of ViT-B, with the same
third of its blocks without windows, for sides at which all of it takes minutes. Each network lives in a process of its own, the
processes take turns, and the ratio is the median of the rounds. Memory is what a fresh process takes at its peak beyond the model
that it holds, the median of three; in training the gradients are in it. Nothing fails here: the numbers are read.

The goals are at 512 pixels a time of 1.3 (inference) and 1.12 (training) of Detectron2's over ours and a memory of 0.25 and 0.8
of it, at 1024 pixels 1.6 and 1.2, and 0.1 and 0.5. With a GPU, `--device cuda` measures there, in bf16 with `--bf16`.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

ARCHS = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
WINDOW = 14
GLOBAL = 4
"""Blocks with global attention in ViTDet."""
SIDES = ("ours", "detectron2")
PEAKS = 3
"""Processes whose peaks of memory are looked at: where freed memory lies in the heap is chance."""


def build(side: str, asked: argparse.Namespace) -> Any:
    """One of the two networks; both get the numbers that Detectron2's is initialised with, and relative positions with noise."""
    import torch
    from detectron2.modeling import ViT

    from backbones.adapters.to_detectron2_maps import LastMap
    from backbones.arch import VitArch
    from backbones.vitdet import dense_options, spread_layers
    from backbones.zoo import vit

    width, depth, heads = ARCHS[asked.arch]
    depth = asked.blocks or depth
    attending = spread_layers(depth, max(1, depth // 3 if asked.blocks else GLOBAL))
    norm: Any = partial(torch.nn.LayerNorm, eps=1e-6)
    torch.manual_seed(0)
    theirs = ViT(
        img_size=asked.size,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        norm_layer=norm,
        use_rel_pos=asked.rel_pos,
        window_size=WINDOW,
        window_block_indexes=[block for block in range(depth) if block not in attending],
        pretrain_use_cls_token=False,
    )
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(std=0.1)
    if side == "detectron2":
        return theirs.to(asked.device)
    arch = VitArch(embed_dim=width, depth=depth, num_heads=heads, patch_size=16, mlp_dim=4 * width, class_token=False)
    spec = vit.spec_of(arch)
    square = (asked.size, asked.size)
    options = dense_options(spec, square, window=WINDOW, global_layers=attending, rel_pos=asked.rel_pos, keep_prefix=False)
    state = {**theirs.state_dict(), "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    return LastMap(vit.assemble(arch, spec, state, options)).to(asked.device)


def work(net: Any, images: Any, *, train: bool, bf16: bool) -> float:
    """One forward, or forward and backward; the sum of the map."""
    import torch

    net.train(train)
    with torch.set_grad_enabled(train), torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
        total = net(images)["last_feat"].float().square().mean()
    if train:
        net.zero_grad(set_to_none=True)
        total.backward()
    if images.device.type == "cuda":
        torch.cuda.synchronize()
    return float(total)


def serve(asked: argparse.Namespace) -> None:
    """Take turns: a line `infer` or `train` asks for one round, `memory ...` for the peak of one; the answer is a JSON line."""
    import torch

    torch.set_num_threads(1)
    net = build(asked.serve, asked)
    images = torch.randn(1, 3, asked.size, asked.size, generator=torch.Generator().manual_seed(1)).to(asked.device)
    for train in (False, True):  # what the libraries take once
        work(net, torch.zeros(1, 3, 32, 32, device=asked.device), train=train, bf16=asked.bf16)
    net.zero_grad(set_to_none=True)
    print("ready", flush=True)
    for line in sys.stdin:
        kind, _, what = line.strip().rpartition(" ")
        clock = time.perf_counter if asked.device == "cuda" else time.process_time
        before, started = reset_peak(asked.device), clock()
        value = work(net, images, train=what == "train", bf16=asked.bf16)
        spent = clock() - started
        print(json.dumps({"seconds": spent, "mb": peak(asked.device) - before if kind else None, "value": value}), flush=True)


def reset_peak(device: str) -> float:
    """MB in use now; the peak is counted from here."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak(device: str) -> float:
    """Largest number of MB in use since."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else _status("VmHWM")


def _status(name: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


class Worker:
    """One network in a process of its own."""

    def __init__(self, side: str) -> None:
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        words = [sys.executable, __file__, *sys.argv[1:], "--serve", side]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | threads)
        while self._line() != "ready":
            pass

    def ask(self, what: str) -> dict[str, float]:
        """One round."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def close(self) -> None:
        """End the process."""
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker has ended; run it with --serve ours to see why")
        return line.strip()


def compare(what: str, asked: argparse.Namespace) -> None:
    """Measure one kind of work and print its row."""
    memory = {side: _peak(side, what, PEAKS if asked.rounds else 1) for side in SIDES}
    seconds = _turns(what, asked.rounds) if asked.rounds else {side: [memory[side]["seconds"]] for side in SIDES}
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["detectron2"], strict=True)]
    ours, theirs = memory["ours"], memory["detectron2"]
    size = f" ({asked.blocks} blocks)" if asked.blocks else ""
    print(
        f"{asked.arch}{size} {asked.size} {what}: {statistics.median(seconds['ours']):.2f} s against "
        f"{statistics.median(seconds['detectron2']):.2f} s: {statistics.median(ratios):.2f}x "
        f"({min(ratios):.2f} to {max(ratios):.2f}); {ours['mb']:.0f} MB against {theirs['mb']:.0f} MB: "
        f"{ours['mb'] / theirs['mb']:.2f}x; values {ours['value']:.7g} and {theirs['value']:.7g}",
        flush=True,
    )


def _peak(side: str, what: str, processes: int) -> dict[str, float]:
    """The first pass of a process, that with the median peak of several."""
    found = []
    for _ in range(processes):
        worker = Worker(side)
        found.append(worker.ask(f"memory {what}"))
        worker.close()
    return sorted(found, key=lambda one: one["mb"])[len(found) // 2]


def _turns(what: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round; the first round of each does not count."""
    workers = {side: Worker(side) for side in SIDES}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(rounds + 1):
        for side, worker in workers.items():
            spent = worker.ask(what)["seconds"]
            if number:
                seconds[side].append(spent)
    for worker in workers.values():
        worker.close()
    return seconds


def main() -> None:
    """Print a row for inference and one for training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", dest="size", type=int, default=512, help="pixels")
    parser.add_argument("--arch", choices=ARCHS, default="base")
    parser.add_argument("--blocks", type=int, default=0, help="0 takes all")
    parser.add_argument("--rounds", type=int, default=5, help="0 measures one pass of each alone")
    parser.add_argument("--no-rel-pos", dest="rel_pos", action="store_false")
    parser.add_argument("--only", choices=("infer", "train"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--serve", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked)
        return
    for what in [asked.only] if asked.only else ["infer", "train"]:
        compare(what, asked)


if __name__ == "__main__":
    main()
