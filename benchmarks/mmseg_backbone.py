"""Forward and backward of MAE's backbone for segmentation (relative position tables, LayerScale), against mmsegmentation's own.

    OMP_NUM_THREADS=1 python benchmarks/mmseg_backbone.py [--layers 12] [--rounds 5] [--size 512]

ViT-B, batch 1. Each contender is a process of its own with the same weights on one thread; they take turns, and CPU time is
counted, which a neighbour on the machine cannot steal. Ratios are medians over the rounds, above 1 where ours is faster; memory
is the peak over the built model, gradients included. Nothing fails here: the numbers are read. The goal is a ratio of 1.15 and
at most 0.7 of the memory. The row with the bias as a mask is what torch's attention makes of the same network.
"""

import argparse
import warnings
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.turns import Step, print_ratios, take_turns

WIDTH, HEADS, PATCH = 768, 12, 16
CONTENDERS = ("mmseg", "bias as a mask", "suite")


def outputs(layers: int) -> list[int]:
    """Blocks whose maps are taken, as mmseg's config does of 12 (3, 5, 7, 11)."""
    from backbones.adapters.to_mmseg import default_layers

    return list(default_layers(layers))


def mmsegs(layers: int, size: int) -> nn.Module:
    """The backbone of mmseg; its tables, which begin at zero, with values in them."""
    from mmseg.models.backbones import MAE

    torch.manual_seed(0)
    norm: Any = {"type": "LN", "eps": 1e-6}
    shape: Any = {"img_size": (size, size), "num_layers": layers, "out_indices": outputs(layers)}
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
    return MaeBenchBackbone(vit.assemble(arch, spec, weights, options), out_layers=tuple(outputs(layers)))


def build(kind: str, layers: int, size: int) -> Step:
    """A contender's step, which gives the loss and the norms of all gradients and of the tables'."""
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)  # mmseg's
    model = (mmsegs if kind == "mmseg" else ours)(layers, size)
    if kind == "bias as a mask":
        from backbones import table_attention

        table_attention.applies = lambda *_: False  # type: ignore[assignment]
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))

    def step() -> tuple[float, ...]:
        model.zero_grad(set_to_none=True)
        loss = torch.stack([one.square().mean() for one in model(images)]).sum()
        loss.backward()
        gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
        tables = [one for name, one in gradients.items() if name.endswith("relative_position_bias_table")]
        norms = (float(torch.stack([one.norm() for one in some]).norm()) for some in (list(gradients.values()), tables))
        return float(loss.detach()), *norms

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12, help="blocks of the network")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="side of the image in pixels")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS, help="the first is what others are held to")
    given = parser.parse_args()
    results = take_turns(given.only, partial(build, layers=given.layers, size=given.size), given.rounds)
    print(f"ViT-B, {given.layers} blocks, {given.size} pixels, batch 1, one thread, {given.rounds} rounds;")
    print("numbers are the loss, the norm of all gradients and of the tables'")
    print_ratios(results, given.only[0])


if __name__ == "__main__":
    main()
