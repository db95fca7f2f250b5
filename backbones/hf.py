"""What files of Hugging Face's transformers share: the names of their tensors, and how these become a network.

transformers 4 and 5 name the same tensors differently, in files and in memory; all their spellings are read.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor

from backbones import hf_config
from backbones.arch import VitArch
from backbones.families import Converted
from backbones.hf_config import Silent
from backbones.ledger import first
from backbones.naming import Translated
from backbones.reading import RawCheckpoint
from backbones.shapes import HEAD_DIM, HEADS_BY_WIDTH
from backbones.zoo.vit import spec_of
from mae_bench.core.config import build
from mae_bench.core.errors import ConfigError, InputError

Kind = Literal["", "vit", "dinov2", "beit", "clip", "dinov3"]

BLOCK = r"(?:model\.)?(?:encoder\.)?layers?\.(\d+)\."
LAST = r"\.(weight|bias)"

RULES = {
    r"embeddings\.cls_token": r"cls_token",
    r"embeddings\.(?:distillation_token|register_tokens)": r"reg_token",
    r"embeddings\.position_embeddings": r"pos_embed",
    rf"embeddings\.patch_embeddings(?:\.projection)?{LAST}": r"patch_embed.proj.\1",
    rf"{BLOCK}attention\.(?:attention\.)?([qkv])(?:_proj|uery|ey|alue){LAST}": r"blocks.\1.attn.\2.\3",
    rf"{BLOCK}attention\.(?:output\.dense|o_proj){LAST}": r"blocks.\1.attn.proj.\2",
    rf"{BLOCK}(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in){LAST}": r"blocks.\1.mlp.fc1.\2",
    rf"{BLOCK}(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj){LAST}": r"blocks.\1.mlp.fc2.\2",
    rf"{BLOCK}mlp\.(gate|up)_proj{LAST}": r"blocks.\1.mlp.\2.\3",
    rf"{BLOCK}(?:layernorm_before|norm1){LAST}": r"blocks.\1.norm1.\2",
    rf"{BLOCK}(?:layernorm_after|norm2){LAST}": r"blocks.\1.norm2.\2",
    rf"{BLOCK}(?:layer_scale([12])\.lambda1|lambda_([12]))": r"blocks.\1.ls\2\3.gamma",
    rf"{BLOCK}(?:attention\.attention\.)?relative_position_bias\.(relative_position_bias_table)": r"blocks.\1.attn.\2",
    r"(?:encoder\.relative_position_bias|shared_position_bias)\.(relative_position_bias_table)": r"rel_pos_bias.\1",
    rf"(?:layernorm|norm){LAST}": r"norm.\1",
}
"""Names of ViT, DeiT, ViTMAE, DINOv2, BEiT and DINOv3 -> timm's; see `naming.translate`."""

DROPPED = {
    r"pooler\.layernorm\.": "norm after pooling, part of the classification head",
    r"pooler\.": "pooler, a layer for transformers' own heads",
    r"embeddings\.mask_token$": "part of the pretraining",
    r".*relative_position_index$": "a table of numbers that is made anew",
    r"embeddings\.position_ids$": "a table of numbers that is made anew",
}
"""Reasons to leave tensors out, by pattern of the beginning of the name."""

# Parts of transformers' other models, for files without a config.json.
FOREIGN = {
    r"detection_tokens|mid_position_embeddings": "detection tokens (YOLOS)",
    r"text_embeddings": "text embeddings (ViLT)",
    r"\.blocks\.\d+\.|\.downsample\.": "stages of blocks (Swin)",
    r"backbone\.bit\.|patch_embeddings\.backbone": "a convolutional stem (ViT hybrid)",
    r"self_attn\.qkv\.": "fused q, k and v (BLIP)",
}


def kind_of(state: Mapping[str, Tensor]) -> Kind:
    """Which of transformers' vision models tensors are of, from their names; empty for none."""
    if "embeddings.patch_embedding.weight" in state:
        return "clip"
    if "embeddings.patch_embeddings.weight" in state:
        return "dinov3"
    if "embeddings.patch_embeddings.projection.weight" not in state:
        return ""
    if _any(r"\.layer_scale[12]\.lambda1$", state):
        return "dinov2"
    if _any(r"\.lambda_[12]$|relative_position_bias", state) or (
        _any(r"\.query\.bias$|\.q_proj\.bias$", state) and not _any(r"\.key\.bias$|\.k_proj\.bias$", state)
    ):
        return "beit"
    return "vit"


def refuse_foreign(raw: RawCheckpoint) -> None:
    """Stop at parts of transformers' other models.

    Raises:
        InputError: names the part and a tensor of it.
    """
    for name in raw.state:
        for pattern, what in FOREIGN.items():
            if re.search(pattern, name):
                raise InputError(f"{raw.path}: has {what}: {name}; this architecture is not supported")


def converted(
    raw: RawCheckpoint,
    translated: Translated,
    config: dict[str, Any],
    silent: Silent,
    *,
    method: str = "unknown",
    prefix_positions: bool = True,
) -> Converted:
    """Say what network translated tensors are of.

    Args:
        raw: the file.
        translated: its tensors by timm's names.
        config: what `hf_config.settings` gives.
        silent: what holds where `config` says nothing.
        method: how the network was pretrained, where the family tells.
        prefix_positions: whether prefix tokens have rows in the position embeddings.

    Raises:
        InputError: shapes that fit no network, or not the one `config.json` describes.
    """
    facts = _facts(raw, translated.state, config, silent, prefix_positions)
    try:
        arch = build(VitArch, facts, where=str(raw.path))
    except ConfigError as error:
        raise InputError(str(error)) from None
    mean, std, note = hf_config.statistics(raw, silent)
    notes = [*_assumed(arch, config), note]
    spec = spec_of(arch, mean=mean, std=std, method=method)
    return Converted(
        "vit", arch, spec, translated.state, translated.renamed, translated.dropped, tuple(note for note in notes if note)
    )


def _facts(
    raw: RawCheckpoint, state: Mapping[str, Tensor], config: dict[str, Any], silent: Silent, prefix_positions: bool
) -> dict[str, Any]:
    """Everything `VitArch` is made of."""
    patch, embed_dim = _patch(raw, state)
    depth = _depth(raw, state)
    hf_config.check_sizes(raw, config, {"hidden_size": embed_dim, "num_hidden_layers": depth, "patch_size": patch})
    mlp_in, mlp_out = (_matrix(raw, state, f"blocks.0.mlp.{layer}.weight") for layer in ("fc1", "fc2"))
    registers = state["reg_token"].shape[-2] if "reg_token" in state and state["reg_token"].ndim > 1 else 0
    prefix = registers + ("cls_token" in state)
    tables = [name for name in state if name.endswith("relative_position_bias_table")]
    grid = _grid(raw, state, config, patch, prefix if prefix_positions else 0, tables)
    heads = silent.num_heads if config else HEADS_BY_WIDTH.get(embed_dim, max(embed_dim // HEAD_DIM, 1))
    gated = mlp_in.shape[0] == 2 * mlp_out.shape[1]
    return {
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": config.get("num_attention_heads", heads),
        "patch_size": patch,
        "mlp_dim": mlp_in.shape[0],
        "image_size": (grid[0] * patch, grid[1] * patch),
        "class_token": "cls_token" in state,
        "num_registers": registers,
        "positions": "pos_embed" in state,
        "prefix_positions": prefix_positions,
        "patch_bias": "patch_embed.proj.bias" in state,
        "pre_norm": "norm_pre.weight" in state,
        "mlp": "swiglu" if gated else hf_config.activation(raw, config, silent),
        "layer_scale": "blocks.0.ls1.gamma" in state,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "relative": ("table" if tables[0].startswith("blocks.") else "shared_table") if tables else "none",
        "final_norm": "norm.weight" in state,
        "norm_eps": config.get("layer_norm_eps", silent.norm_eps),
    }


def _assumed(arch: VitArch, config: dict[str, Any]) -> list[str]:
    """What a bare file leaves to assume."""
    if config:
        return []
    told = f"{arch.num_heads} heads, LayerNorm epsilon {arch.norm_eps:g} and {arch.mlp}"
    return [f"{told} are assumed: no config.json beside the file says them"]


def _patch(raw: RawCheckpoint, state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Side of the patches in pixels, and the width."""
    weight = state.get("patch_embed.proj.weight")
    if weight is None or weight.ndim != 4 or weight.shape[1] != 3 or weight.shape[2] != weight.shape[3] or not weight.numel():
        shape = None if weight is None else tuple(weight.shape)
        raise InputError(
            f"{raw.path}: its patch projection is {shape}; (width, 3, side, side) is needed: one colour image, no video"
        )
    return weight.shape[2], weight.shape[0]


def _depth(raw: RawCheckpoint, state: Mapping[str, Tensor]) -> int:
    depth = 1 + max((int(name.split(".")[1]) for name in state if re.match(r"blocks\.\d+\.", name)), default=-1)
    if depth < 1 or depth > len(state):
        raise InputError(f"{raw.path}: names {depth} blocks and has {len(state)} tensors in all ({first(list(raw.state))})")
    return depth


def _matrix(raw: RawCheckpoint, state: Mapping[str, Tensor], name: str) -> Tensor:
    tensor = state.get(name)
    if tensor is None or tensor.ndim != 2:
        shape = "missing" if tensor is None else tuple(tensor.shape)
        raise InputError(f"{raw.path}: what becomes {name} is {shape}; a matrix is needed")
    return tensor


def _grid(
    raw: RawCheckpoint, state: Mapping[str, Tensor], config: dict[str, Any], patch: int, prefix_rows: int, tables: list[str]
) -> tuple[int, int]:
    """The grid (h, w) of the position embeddings, or else of the relative positions."""
    if "pos_embed" in state:
        positions = state["pos_embed"]
        if positions.ndim != 3:
            raise InputError(f"{raw.path}: its position embeddings are {tuple(positions.shape)}; (1, rows, width) is needed")
        counted = f"{positions.shape[1]} position rows with {prefix_rows} of prefix tokens"
        return hf_config.grid_of(raw, config, patch, positions.shape[1] - prefix_rows, counted)
    if not tables:
        raise InputError(f"{raw.path}: has neither position embeddings nor relative positions; the file is not whole")
    rows = state[tables[0]].shape[0] if state[tables[0]].ndim else 0
    return hf_config.grid_of(raw, config, patch, rows, f"{rows} rows of relative positions", relative=True)


def _any(pattern: str, names: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for name in names)
