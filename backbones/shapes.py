"""What the shapes of tensors with timm's names say about the architecture they belong to."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from backbones.arch import VitArch
from mae_bench.core.config import build
from mae_bench.core.errors import ConfigError, InputError

# Heads do not show in any shape. These are the numbers that timm and MAE use with these widths; else heads of 64 are assumed.
HEADS_BY_WIDTH = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}
HEAD_DIM = 64

# Parts that mark networks which this one cannot run, so that it says so instead of leaving them out.
FOREIGN = {
    r"^dist_token$": "a distillation token (DeiT distilled)",
    r"^norm_pre\.": "a norm before the blocks (CLIP)",
    r"\.attn\.q_bias$": "separate q and v biases (BEiT)",
    r"relative_position_bias_table$": "relative position tables (BEiT)",
    r"\.mlp\.(fc1_g|w12|w3|gate_proj)\.": "a gated MLP (SwiGLU)",
    r"\.attn\.gate\.": "gated attention",
    r"\.attn\.norm\.|\.mlp\.norm\.": "norms inside attention or MLP",
    r"\.attn\.in_proj": "torch's MultiheadAttention",
    r"^blocks\.\d+\.\d+\.": "blocks in chunks (DINOv2 training files)",
}

# Tensors that every such network has, with their number of dimensions.
NEEDED = {"pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.attn.qkv.weight": 2, "blocks.0.mlp.fc1.weight": 2}


def is_timm_vit(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are named as those of timm's VisionTransformer."""
    return all(name in state and state[name].ndim == ndim for name, ndim in NEEDED.items())


def refuse_foreign(path: Path, state: Mapping[str, Tensor]) -> None:
    """Stop at parts that the network here does not have.

    Raises:
        InputError: names the part and a tensor of it.
    """
    for name in state:
        for pattern, what in FOREIGN.items():
            if re.search(pattern, name):
                raise InputError(f"{path}: has {what}: {name}; this architecture is not supported yet")


def arch_of(path: Path, state: Mapping[str, Tensor]) -> VitArch:
    """The architecture that tensors with timm's names belong to.

    Args:
        path: for messages.
        state: tensors by timm's names; none of them is a head's.

    Raises:
        InputError: shapes that fit no network of this kind.
    """
    patch, embed_dim = _patch(path, state), state["pos_embed"].shape[-1]
    depth = 1 + max(int(name.split(".")[1]) for name in state if re.match(r"blocks\.\d+\.", name))
    if depth > len(state):
        raise InputError(f"{path}: names a block {depth - 1} and has {len(state)} tensors in all")
    registers = state["reg_token"].shape[-2] if "reg_token" in state and state["reg_token"].ndim > 1 else 0
    num_prefix = registers + ("cls_token" in state)
    grid, prefix_positions = _grid(path, state["pos_embed"].shape[1], num_prefix)
    head_norm = state.get("blocks.0.attn.q_norm.weight")
    heads = HEADS_BY_WIDTH.get(embed_dim) or max(embed_dim // HEAD_DIM, 1)
    facts = {
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": heads if head_norm is None else embed_dim // head_norm.shape[0],
        "patch_size": patch,
        "mlp_dim": state["blocks.0.mlp.fc1.weight"].shape[0],
        "image_size": (grid[0] * patch, grid[1] * patch),
        "class_token": "cls_token" in state,
        "num_registers": registers,
        "prefix_positions": prefix_positions,
        "layer_scale": "blocks.0.ls1.gamma" in state,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "qk_norm": head_norm is not None,
        "final_norm": "norm.weight" in state,
    }
    try:
        return build(VitArch, facts, where=str(path))
    except ConfigError as error:
        raise InputError(str(error)) from None


def assumptions(arch: VitArch) -> tuple[str, ...]:
    """What of an architecture was assumed, for the ledger."""
    assumed = not arch.qk_norm and arch.embed_dim not in HEADS_BY_WIDTH
    return (f"{arch.num_heads} heads are assumed: the file does not say how many",) if assumed else ()


def _patch(path: Path, state: Mapping[str, Tensor]) -> int:
    weight = state["patch_embed.proj.weight"]
    if weight.shape[1] != 3 or weight.shape[2] != weight.shape[3]:
        raise InputError(f"{path}: patch_embed.proj.weight is {tuple(weight.shape)}; (width, 3, side, side) is needed")
    return weight.shape[2]


def _grid(path: Path, rows: int, num_prefix: int) -> tuple[tuple[int, int], bool]:
    """The grid of the position embeddings, and whether the prefix tokens have rows of their own."""
    # A grid alone first: with registers, timm gives positions to patches only.
    for prefix in (0, num_prefix):
        side = math.isqrt(max(rows - prefix, 0))
        if side and side * side == rows - prefix:
            return (side, side), prefix > 0 or num_prefix == 0
    raise InputError(
        f"{path}: {rows} position rows with {num_prefix} prefix tokens are no square grid, and the file does not say which "
        "rectangle they are"
    )
