"""What the shapes of tensors with timm's names say about the architecture they belong to."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones import relative
from backbones.arch import Arch, VitArch
from mae_bench.core.config import build
from mae_bench.core.errors import ConfigError, InputError

# Heads do not show in any shape. These are the numbers that most networks of these widths have (timm's ViT, DeiT, CLIP, SigLIP);
# for other widths heads of 64 are taken. Either is a guess, which `assumptions` says.
HEADS_BY_WIDTH = {192: 3, 384: 6, 768: 12, 1024: 16, 1152: 16, 1280: 16, 1408: 16, 1664: 16}
HEAD_DIM = 64
# LayerNorm's epsilon of the networks with a norm before the blocks: CLIP's and DINOv2's descendants of it (timm and torch).
PRE_NORM_EPS = 1e-5

# Parts that mark networks which this one cannot run, so that it says so instead of leaving them out.
FOREIGN = {
    r"^patch_embed\.(backbone|conv|stem|proj\.\d)": "a convolutional stem",
    r"\.attn\.gate\.": "gated attention",
    r"\.attn\.norm\.|\.mlp\.norm\.": "norms inside attention or MLP",
    r"\.mlp\.(w1|w2|w3|w12|gate_proj)\.": "a gated MLP (SwiGLU) in an unknown layout",
    r"^rope|\.rope\.|\.freqs$|rope_embed": "rotary positions",
    r"\.attn\.pool_[qkv]": "attention with pooling (MViT)",
    r"^blocks\.\d+\.residual\.": "convolutions after blocks (ViTDet's variant)",
    r"^patch_embed\.norm\.": "a norm of patches",
    r"\.attn\.in_proj": "torch's MultiheadAttention",
    r"^blocks\.\d+\.\d+\.": "blocks in chunks",
    r"^blocks\.\d+\.(norm1|attn|mlp)_?\d?\.\d+\.": "parallel branches in a block",
}

# Tensors that every such network has, with their number of dimensions.
NEEDED = {"patch_embed.proj.weight": 4, "blocks.0.attn.qkv.weight": 2, "blocks.0.mlp.fc2.weight": 2}


def is_timm_vit(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are named as those of timm's VisionTransformer with position embeddings."""
    return "pos_embed" in state and state["pos_embed"].ndim == 3 and has_blocks(state)


def has_blocks(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are named as those of timm's VisionTransformer, whatever its positions are."""
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


def arch_of(path: Path, state: Mapping[str, Tensor], **known: Any) -> VitArch:
    """The architecture that tensors with timm's names belong to.

    Args:
        path: for messages.
        state: tensors by timm's names; none of them is a head's.
        known: fields of `VitArch` that the family fixes, whatever the shapes say.

    Raises:
        InputError: shapes that fit no network of this kind.
    """
    for name, ndim in NEEDED.items():
        tensor(path, state, name, ndim)
    patch, embed_dim = patch_size(path, state), state["patch_embed.proj.weight"].shape[0]
    num_prefix = registers(state) + ("cls_token" in state)
    kind, table_grid, table_heads = _relative(path, state, patch, known.get("image_size"))
    grid, prefix_positions = table_grid, True
    if "pos_embed" in state:
        grid, prefix_positions = position_grid(path, state, num_prefix, known.get("image_size"))
    if grid is None:
        raise InputError(f"{path}: neither pos_embed nor relative positions: nothing tells patches from each other")
    head_norm = state.get("blocks.0.attn.q_norm.weight")
    heads = table_heads or HEADS_BY_WIDTH.get(embed_dim) or max(embed_dim // HEAD_DIM, 1)
    hidden, last = tensor(path, state, "blocks.0.mlp.fc1.weight", 2).shape[0], state["blocks.0.mlp.fc2.weight"].shape[1]
    pre_norm = "norm_pre.weight" in state
    facts = {
        "embed_dim": embed_dim,
        "depth": depth(path, state),
        "num_heads": heads if head_norm is None else embed_dim // max(head_norm.numel(), 1),
        "patch_size": patch,
        "mlp_dim": hidden,
        "mlp": "swiglu" if hidden == 2 * last else "gelu",
        "image_size": (grid[0] * patch, grid[1] * patch),
        "class_token": "cls_token" in state,
        "num_registers": registers(state),
        "positions": "pos_embed" in state,
        "prefix_positions": prefix_positions,
        # Only networks with a norm before the blocks do without; elsewhere a missing bias is missing.
        "patch_bias": "patch_embed.proj.bias" in state or not pre_norm,
        "pre_norm": pre_norm,
        "layer_scale": "blocks.0.ls1.gamma" in state,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "qk_norm": head_norm is not None,
        "relative": kind,
        "relative_grid": table_grid if table_grid != grid else None,
        "final_norm": "norm.weight" in state,
        "norm_eps": PRE_NORM_EPS if pre_norm else 1e-6,
        **known,
    }
    try:
        return build(VitArch, facts, where=str(path))
    except ConfigError as error:
        raise InputError(str(error)) from None


def assumptions(arch: VitArch, *, heads: bool = False) -> tuple[str, ...]:
    """What of an architecture was assumed, for the ledger; `heads` says that their number was not."""
    told = heads or arch.qk_norm or arch.relative != "none"
    bare = not arch.class_token and arch.relative != "decomposed"
    return *heads_notes(arch, told=told), *(("no class token: the file has none",) if bare else ()), *norm_notes(arch)


def heads_notes(arch: Arch, *, told: bool) -> tuple[str, ...]:
    """What to know of a number of heads that neither a file nor its family tells."""
    return () if told else (f"{arch.num_heads} heads are assumed: the file does not say how many",)


def norm_notes(arch: Arch) -> tuple[str, ...]:
    """What to know of a network without a norm after its last block."""
    note = "no norm after the last block: the file has none, or its own follows the pooling; norm=True changes nothing"
    return () if arch.final_norm else (note,)


def tensor(path: Path, state: Mapping[str, Tensor], name: str, ndim: int) -> Tensor:
    """A tensor that must be there, with its number of dimensions.

    Raises:
        InputError: it is not.
    """
    if name not in state:
        raise InputError(f"{path}: {name} is missing; without it the architecture is not known")
    if state[name].ndim != ndim:
        raise InputError(f"{path}: {name} is {tuple(state[name].shape)}; {ndim} dimensions are needed")
    return state[name]


def depth(path: Path, state: Mapping[str, Tensor]) -> int:
    """Number of blocks."""
    found = 1 + max(int(name.split(".")[1]) for name in state if re.match(r"blocks\.\d+\.", name))
    if found > len(state):
        raise InputError(f"{path}: names a block {found - 1} and has {len(state)} tensors in all")
    return found


def registers(state: Mapping[str, Tensor]) -> int:
    """Number of register tokens."""
    return state["reg_token"].shape[-2] if "reg_token" in state and state["reg_token"].ndim > 1 else 0


def patch_size(path: Path, state: Mapping[str, Tensor]) -> int:
    """Side of a patch in pixels."""
    weight = tensor(path, state, "patch_embed.proj.weight", 4)
    if weight.shape[1] != 3 or weight.shape[2] != weight.shape[3] or weight.shape[2] == 0:
        raise InputError(f"{path}: patch_embed.proj.weight is {tuple(weight.shape)}; (width, 3, side, side) is needed")
    return weight.shape[2]


def position_grid(
    path: Path, state: Mapping[str, Tensor], num_prefix: int, size: tuple[int, int] | None = None
) -> tuple[tuple[int, int], bool]:
    """The grid of the position embeddings, and whether the prefix tokens have rows of their own.

    Args:
        path: for messages.
        state: tensors by timm's names.
        num_prefix: number of prefix tokens.
        size: height and width in pixels, where they are known; else the grid is a square.
    """
    rows = tensor(path, state, "pos_embed", 3).shape[1]
    patch = patch_size(path, state)
    # A grid alone first: with registers, timm gives positions to patches only.
    for prefix in (0, num_prefix):
        side = math.isqrt(max(rows - prefix, 0))
        grid = (size[0] // patch, size[1] // patch) if size else (side, side)
        if side and grid[0] * grid[1] == rows - prefix:
            return grid, prefix > 0 or num_prefix == 0
    if size:
        raise InputError(
            f"{path}: {rows} position rows with {num_prefix} prefix tokens are not those of {size[0]} x {size[1]} pixels "
            f"in patches of {patch}; give the image_size it was trained with"
        )
    raise InputError(
        f"{path}: {rows} position rows with {num_prefix} prefix tokens are no square grid, and the file does not say which "
        "rectangle they are; add #image_size=HEIGHTxWIDTH in pixels"
    )


def _relative(
    path: Path, state: Mapping[str, Tensor], patch: int, size: tuple[int, int] | None
) -> tuple[str, tuple[int, int] | None, int | None]:
    """Kind of relative positions, the grid of their tables and the number of heads; BEiT's only."""
    shared = f"rel_pos_bias.{relative.TABLE}"
    name = shared if shared in state else f"blocks.0.attn.{relative.TABLE}"
    if name not in state:
        return "none", None, None
    rows, heads = tensor(path, state, name, 2).shape
    # (2h - 1) * (2w - 1) rows for distances and 3 for the class token.
    side = (math.isqrt(max(rows - relative.EXTRA, 0)) + 1) // 2
    grid = (size[0] // patch, size[1] // patch) if size else (side, side)
    if "cls_token" not in state:
        raise InputError(f"{path}: {name} has rows for a class token, and cls_token is missing")
    if min(grid) < 1 or relative.table_rows(grid) != rows:
        shown = f"{grid[0]} x {grid[1]} patches" if size else "a square grid"
        raise InputError(
            f"{path}: {name} has {rows} rows, which is no table of {shown} with a class token; if the network is for "
            "another rectangle, give its image_size"
        )
    return "shared_table" if name == shared else "table", grid, heads
