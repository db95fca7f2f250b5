"""Layouts that a backbone can be written in for other programs: one file a target, its name the value of `--to`.

A file here has the names of `Target`, and `eva_layout(arch, spec, weights)` if it holds networks with rotary positions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from backbones.arch import VitArch
from backbones.contract import BackboneSpec
from mae_bench.core.errors import InputError

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """A backbone in the terms of another program."""

    tensors: dict[str, Tensor]
    how: str
    """How it is opened there, in a line."""
    notes: tuple[str, ...] = ()
    """What is not as it was here: tensors left out or added, with the reason."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the target's own file needs besides (a configuration)."""


class Target(Protocol):
    """What a file in `exports/` has."""

    NAME: str
    """For messages: what reads it."""
    ENDINGS: tuple[str, ...]
    """What OUT may end in; empty for a folder."""

    @staticmethod
    def layout(arch: VitArch, spec: BackboneSpec, weights: Weights) -> Layout:
        """Bring weights, named as in the network, into the target's names.

        Raises:
            InputError: a part that the target cannot hold exactly.
        """
        ...

    @staticmethod
    def write(out: Path, layout: Layout) -> None:
        """Write a layout to a path that does not exist, or may be replaced."""
        ...


# Parts that go beyond MAE's plain ViT, by the words of a refusal; what a target holds of them it says.
PARTS: dict[str, tuple[str, Callable[[VitArch], bool]]] = {
    "class_less": ("no class token", lambda arch: not arch.class_token),
    "registers": ("register tokens", lambda arch: arch.num_registers > 0),
    "register_positions": (
        "positions for its register tokens",
        lambda arch: arch.num_registers > 0 and arch.positions and arch.prefix_positions,
    ),
    "class_without_position": (
        "no position row for its class token",
        lambda arch: arch.num_prefix_tokens > 0 and arch.positions and not arch.prefix_positions,
    ),
    "no_positions": ("no absolute positions", lambda arch: not arch.positions),
    "rectangle": ("positions for a rectangle", lambda arch: arch.positions and arch.grid[0] != arch.grid[1]),
    "patch_bias_less": ("no bias in its patch projection", lambda arch: not arch.patch_bias),
    "pre_norm": ("a norm before the blocks", lambda arch: arch.pre_norm),
    "layer_scale": ("LayerScale", lambda arch: arch.layer_scale),
    "qkv_bias_less": ("no bias in its queries, keys and values", lambda arch: not arch.qkv_bias),
    "qk_norm": ("norms of queries and keys", lambda arch: arch.qk_norm),
    "swiglu": ("a gated MLP (SwiGLU)", lambda arch: arch.mlp == "swiglu"),
    "other_gelu": ("an approximated GELU", lambda arch: arch.mlp in ("gelu_tanh", "quick_gelu")),
    "table": ("relative position tables", lambda arch: arch.relative == "table"),
    "shared_table": ("a relative position table shared by its blocks", lambda arch: arch.relative == "shared_table"),
    "decomposed": ("decomposed relative positions", lambda arch: arch.relative == "decomposed"),
    "windows": ("windowed attention", lambda arch: arch.window > 0),
    "norm_less": ("no final norm", lambda arch: not arch.final_norm),
    "relative_grid": (
        "relative positions for another grid than its image's",
        lambda arch: arch.relative in ("table", "shared_table") and arch.relative_grid not in (None, arch.grid),
    ),
    "broken_mlp": (
        "an MLP whose width is no whole multiple",
        lambda arch: arch.mlp != "swiglu" and arch.mlp_dim % arch.embed_dim != 0,
    ),
}

SIZES = {"embed_dim", "depth", "num_heads", "patch_size", "mlp_dim", "image_size", "norm_eps", "global_layers"}
TOLD = {"class_token", "num_registers", "positions", "prefix_positions", "patch_bias", "pre_norm", "mlp", "layer_scale"}
TOLD |= {"qkv_bias", "qk_norm", "relative", "relative_grid", "window", "final_norm"}
"""Settings of a network that sizes or `PARTS` speak of."""


def refuse(arch: VitArch, what: str, held: tuple[str, ...]) -> None:
    """Stop at parts that a layout does not hold.

    Args:
        arch: the network.
        what: the layout, for the message.
        held: keys of `PARTS` that it does hold.

    Raises:
        InputError: names the parts.
    """
    unknown = {name for name, field in type(arch).model_fields.items() if getattr(arch, name) != field.default}
    unknown -= SIZES | TOLD
    lacking = [words for key, (words, has) in PARTS.items() if key not in held and has(arch)]
    lacking += [f"{name}={getattr(arch, name)}" for name in sorted(unknown)]
    if lacking:
        raise InputError(f"{what} cannot hold this network exactly: it has {' and '.join(lacking)}; choose another --to")


def without_key_bias(what: str, name: str, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The biases of queries and values, for layouts that have none for keys.

    Raises:
        InputError: there is one for keys.
    """
    q, k, v = bias.chunk(3)
    if k.any():
        raise InputError(f"{what} cannot hold this network exactly: {name} has biases for keys; choose another --to")
    return q, v


def colours(spec: BackboneSpec) -> str:
    """Mean and std in words, for layouts without a place for them."""
    return f"mean {list(spec.mean)}, std {list(spec.std)} of RGB in 0..1"
