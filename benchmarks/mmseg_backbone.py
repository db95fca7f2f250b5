"""One training step of MAE's backbone for segmentation (relative position tables, LayerScale), against mmsegmentation's own.

    OMP_NUM_THREADS=1 python benchmarks/mmseg_backbone.py [--layers 4] [--rounds 5] [--size 512]

ViT-B, batch 1, forward and backward. Each contender is a process of its own with the same weights on one thread; they take turns,
and CPU time is counted, which a neighbour on the machine cannot steal. Ratios are medians over the rounds, above 1 where ours is
faster; memory is the peak over the built model, gradients included. Nothing fails here: the numbers are read. The goal is a
ratio of 1.15 and at most 0.7 of the memory. The row with the bias as a mask is what torch's attention makes of the same network.
"""

import argparse
import multiprocessing
import statistics
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

WIDTH, HEADS, PATCH = 768, 12, 16
CONTENDERS = ("mmseg", "bias as a mask", "suite")


class Step(NamedTuple):
    """What one step cost and computed."""

    seconds: float
    loss: float
    gradient: float
    """Norm of all gradients."""
    tables: float
    """Norm of the gradients of the tables."""


def mmsegs(layers: int, size: int) -> nn.Module:
    """The backbone of mmseg; its tables, which begin at zero, with values in them."""
    from mmseg.models.backbones import MAE

    torch.manual_seed(0)
    norm: Any = {"type": "LN", "eps": 1e-6}
    shape: Any = {"img_size": (size, size), "num_layers": layers, "out_indices": list(range(layers - 4, layers))}
    backbone = MAE(**shape, embed_dims=WIDTH, num_heads=HEADS, patch_size=PATCH, init_values=1.0, norm_cfg=norm)
    backbone.init_weights()
    for name, parameter in backbone.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.normal_(parameter, std=0.1)
    return backbone


def ours(layers: int, size: int) -> nn.Module:
    """The suite's backbone in its adapter, with the weights of mmseg's."""
    from backbones.adapters.to_mmseg import MaeBenchBackbone
    from backbones.arch import VitArch
    from backbones.contract import DenseOptions
    from backbones.exports.mmseg import renamed
    from backbones.zoo import vit

    theirs = mmsegs(layers, size).state_dict()
    arch = VitArch(embed_dim=WIDTH, depth=layers, num_heads=HEADS, patch_size=PATCH, mlp_dim=4 * WIDTH, image_size=(size, size))
    options = DenseOptions(relative_table=True, layer_scale=1.0)
    spec = vit.spec_of(arch)
    names = vit.weights_of(vit.empty(arch, spec, options))
    weights = {name: theirs[renamed(name)] for name in names if renamed(name) in theirs}
    weights |= {"norm.weight": torch.ones(WIDTH), "norm.bias": torch.zeros(WIDTH)}
    backbone = vit.assemble(arch, spec, weights, options)
    return MaeBenchBackbone(backbone, out_layers=tuple(range(layers - 4, layers)))


def work(kind: str, layers: int, size: int, pipe: Connection) -> None:
    """Build a contender, then make a step whenever asked; the answer to "end" is the peak of memory over the model, in MB."""
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)  # mmseg's
    torch.set_num_threads(1)
    model = mmsegs(layers, size) if kind == "mmseg" else ours(layers, size)
    if kind == "bias as a mask":
        from backbones import table_attention

        table_attention.applies = lambda *_: False  # type: ignore[assignment]
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is used now
    before = _memory("VmRSS")
    pipe.send("ready")
    while pipe.recv() == "step":
        pipe.send(_step(model, images))
    pipe.send((_memory("VmHWM") - before) / 1024)


def _step(model: nn.Module, images: torch.Tensor) -> Step:
    model.zero_grad(set_to_none=True)
    started = time.process_time()
    loss = torch.stack([one.square().mean() for one in model(images)]).sum()
    loss.backward()
    seconds = time.process_time() - started
    gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    tables = [one for name, one in gradients.items() if name.endswith("relative_position_bias_table")]
    norms = [float(torch.stack([one.norm() for one in some]).norm()) for some in (list(gradients.values()), tables)]
    return Step(seconds, float(loss.detach()), *norms)


def _memory(field: str) -> int:
    """A field of this process's memory, in KB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def measure(layers: int, size: int, rounds: int) -> tuple[dict[str, list[Step]], dict[str, float]]:
    """Steps and peak memory of each contender, in turns, after a round that does not count."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for kind in CONTENDERS:
        here, there = context.Pipe()
        context.Process(target=work, args=(kind, layers, size, there), daemon=True).start()
        there.close()
        pipes[kind] = here
        here.recv()
    steps: dict[str, list[Step]] = {kind: [] for kind in CONTENDERS}
    for number in range(rounds + 1):
        for kind, pipe in pipes.items():
            pipe.send("step")
            step = pipe.recv()
            if number:
                steps[kind].append(step)
    memory = {}
    for kind, pipe in pipes.items():
        pipe.send("end")
        memory[kind] = pipe.recv()
    return steps, memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="blocks of the network (4 or more)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels")
    given = parser.parse_args()
    steps, memory = measure(given.layers, given.size, given.rounds)
    print(f"ViT-B, {given.layers} blocks, {given.size} pixels, batch 1, one thread, {given.rounds} rounds")
    print(f"{'':16}{'CPU s':>8}{'ratio':>8}{'of min':>8}{'MB':>8}{'ratio':>8}  loss, norm of gradients, of tables")
    first = [step.seconds for step in steps[CONTENDERS[0]]]
    for kind in CONTENDERS:
        seconds = [step.seconds for step in steps[kind]]
        ratio = statistics.median(theirs / mine for theirs, mine in zip(first, seconds, strict=True))
        last = steps[kind][-1]
        share = memory[kind] / memory[CONTENDERS[0]]
        print(
            f"{kind:16}{statistics.median(seconds):8.2f}{ratio:8.2f}{min(first) / min(seconds):8.2f}"
            f"{memory[kind]:8.0f}{share:8.2f}  {last.loss:.7g} {last.gradient:.7g} {last.tables:.7g}"
        )


if __name__ == "__main__":
    main()
