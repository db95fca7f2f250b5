"""What the shapes of tensors with the names of timm's Eva say about the architecture they belong to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones import shapes
from backbones.eva import EvaArch
from mae_bench.core.config import build
from mae_bench.core.errors import ConfigError, InputError

# 224 pixels in patches of 14: all of EVA-02's rotary positions are scaled to it, whatever the size (timm, models/eva.py).
EVA02_GRID = (16, 16)
# DINOv3's LayerNorm (timm, models/eva.py; the file does not say); EVA-02's is 1e-6.
DINOV3_EPS = 1e-5
# DINOv3 stores no positions, so no size; its files were trained at 256 pixels and more, and this is what probes use.
SIDE = 224
# DINOv3's 7B has heads of 128, all others heads of 64 (arXiv 2508.10104, table 2; timm, models/eva.py).
HEADS_OF_DINOV3 = {4096: 32}


def is_timm_eva(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are named as those of timm's Eva; those it shares with BEiT and the plain ViT are none."""
    if "patch_embed.proj.weight" not in state or any(name.endswith("relative_position_bias_table") for name in state):
        return False
    if "blocks.0.attn.q_proj.weight" in state:
        return True
    if "blocks.0.attn.qkv.weight" not in state or "blocks.0.attn.qkv.bias" in state:
        return False
    return "blocks.0.attn.q_bias" in state or ("blocks.0.gamma_1" in state and "pos_embed" not in state)


def arch_of(path: Path, state: Mapping[str, Tensor], **known: Any) -> EvaArch:
    """The architecture that tensors with timm's names belong to.

    Args:
        path: for messages.
        state: tensors by timm's names; none of them is a head's.
        known: fields of `EvaArch` that the family fixes, whatever the shapes say.

    Raises:
        InputError: shapes that fit no network of this kind.
    """
    patch = shapes.patch_size(path, state)
    embed_dim = state["patch_embed.proj.weight"].shape[0]
    registers = shapes.registers(state)
    num_prefix = registers + ("cls_token" in state)
    gated = "blocks.0.mlp.fc1_g.weight" in state
    first = shapes.tensor(path, state, "blocks.0.mlp.fc1_g.weight" if gated else "blocks.0.mlp.fc1.weight", 2)
    last = shapes.tensor(path, state, "blocks.0.mlp.fc2.weight", 2)
    packed = not gated and first.shape[0] == 2 * last.shape[1]
    positions = "pos_embed" in state
    _check_positions(path, state)
    rope = "dinov3" if not positions else "eva02" if gated or packed else "none"
    side = SIDE // patch or 1
    size, no_rows = known.get("image_size"), ((side, side), False)
    grid, prefix_positions = shapes.position_grid(path, state, num_prefix, size) if positions else no_rows
    heads = None if rope == "dinov3" else shapes.HEADS_BY_WIDTH.get(embed_dim)
    facts = {
        "embed_dim": embed_dim,
        "depth": shapes.depth(path, state),
        "num_heads": heads or HEADS_OF_DINOV3.get(embed_dim) or max(embed_dim // shapes.HEAD_DIM, 1),
        "patch_size": patch,
        "mlp_dim": first.shape[0] * (2 if gated else 1),
        "mlp": "swiglu_split" if gated else "swiglu" if packed else "gelu",
        "mlp_norm": "blocks.0.mlp.norm.weight" in state,
        "attention_norm": "blocks.0.attn.norm.weight" in state,
        "split_qkv": "blocks.0.attn.q_proj.weight" in state,
        "image_size": (grid[0] * patch, grid[1] * patch),
        "class_token": "cls_token" in state,
        "num_registers": registers,
        "positions": positions,
        "prefix_positions": prefix_positions,
        "layer_scale": "blocks.0.gamma_1" in state,
        "qkv_bias": "blocks.0.attn.q_bias" in state or "blocks.0.attn.q_proj.bias" in state,
        "rope": rope,
        "rope_grid": EVA02_GRID if rope == "eva02" else None,
        "final_norm": "norm.weight" in state,
        "norm_eps": DINOV3_EPS if rope == "dinov3" else 1e-6,
        **known,
    }
    try:
        return build(EvaArch, facts, where=str(path))
    except ConfigError as error:
        raise InputError(str(error)) from None


def _check_positions(path: Path, state: Mapping[str, Tensor]) -> None:
    """Without position embeddings it is DINOv3, which has all of these; otherwise something is missing."""
    marks = ("cls_token", "reg_token", "blocks.0.gamma_1")
    if "pos_embed" not in state and not all(name in state for name in marks):
        missing = ", ".join(name for name in ("pos_embed", *marks) if name not in state)
        raise InputError(
            f"{path}: neither EVA-02, which has pos_embed, nor DINOv3, which has {', '.join(marks)}; missing: {missing}"
        )


def assumptions(arch: EvaArch, *, heads: bool = False) -> tuple[str, ...]:
    """What of an architecture was assumed, for the ledger; `heads` says that their number was not."""
    notes = [*shapes.heads_notes(arch, told=heads), *shapes.norm_notes(arch)]
    if arch.rope == "eva02":
        notes.append("rotary positions are EVA-02's, scaled to 16 x 16 patches: the file does not say")
    if arch.rope == "dinov3":
        notes.append("rotary positions are DINOv3's")
    return tuple(notes)
