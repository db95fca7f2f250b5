"""What a Vision Transformer is made of, and what becomes of it when a dense task asks for another size, windows or positions."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from backbones import relative
from backbones.contract import DenseOptions
from backbones.positions import resample, resize_kernel
from mae_bench.core.config import Config

Size = tuple[int, int]
Mlp = Literal["gelu", "gelu_tanh", "quick_gelu", "swiglu"]
Relative = Literal["none", "decomposed", "table", "shared_table"]


class Arch(Config):
    """What every Vision Transformer is told by, whatever its blocks are."""

    embed_dim: PositiveInt
    depth: PositiveInt
    num_heads: PositiveInt
    patch_size: PositiveInt
    mlp_dim: PositiveInt
    """Width of what the first layer of the MLP gives; where it is gated, gate and value together."""
    image_size: tuple[PositiveInt, PositiveInt] = (224, 224)
    """Height and width in pixels the position embeddings belong to."""
    class_token: bool = True
    num_registers: NonNegativeInt = 0
    """Prefix tokens after the class token; DeiT's distillation token counts as one."""
    positions: bool = True
    """Whether there are absolute position embeddings."""
    prefix_positions: bool = True
    """Whether prefix tokens have rows of their own in the position embeddings."""
    layer_scale: bool = False
    qkv_bias: bool = True
    final_norm: bool = True
    """False for networks whose last norm follows the pooling and so belongs to the head."""
    norm_eps: float = 1e-6

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"a width of {self.embed_dim} cannot be shared by {self.num_heads} heads")
        if any(side % self.patch_size for side in self.image_size):
            raise ValueError(f"image size {self.image_size} is not made of whole patches of {self.patch_size} pixels")
        return self

    @property
    def num_prefix_tokens(self) -> int:
        """Class token and registers."""
        return int(self.class_token) + self.num_registers

    @property
    def num_prefix_rows(self) -> int:
        """Rows of the position embeddings that belong to prefix tokens."""
        return self.num_prefix_tokens if self.prefix_positions else 0

    @property
    def grid(self) -> Size:
        """Grid (h, w) of the position embeddings."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size


class VitArch(Arch):
    """Everything about a network that its tensors are shaped by, and the facts they do not show (heads, epsilon, activation)."""

    patch_bias: bool = True
    pre_norm: bool = False
    """Whether a norm stands between the stem and the blocks (CLIP)."""
    mlp: Mlp = "gelu"
    """`quick_gelu` is x * sigmoid(1.702 x) (OpenAI's CLIP), `swiglu` silu(gate) * value (DINOv2's giant)."""
    qk_norm: bool = False
    relative: Relative = "none"
    """Relative positions: ViTDet's `decomposed`, or BEiT's `table` in each block or one `shared_table` for all."""
    relative_grid: tuple[PositiveInt, PositiveInt] | None = None
    """Grid (h, w) that relative positions of global attention are stored for; None is the grid of `image_size`."""
    window: NonNegativeInt = 0
    """Side in patches of the windows attention stays in; 0 is global attention."""
    global_layers: tuple[NonNegativeInt, ...] = ()
    """Blocks that keep global attention when there are windows."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.mlp == "swiglu" and self.mlp_dim % 2:
            raise ValueError(f"an MLP of {self.mlp_dim} cannot be halved into gate and value")
        if (self.window or self.relative == "decomposed") and self.num_prefix_tokens:
            raise ValueError("windows and decomposed relative positions are for patch tokens alone; build with keep_prefix=False")
        if any(layer >= self.depth for layer in self.global_layers):
            raise ValueError(f"layers {self.global_layers} of a network with {self.depth} blocks")
        return self

    @property
    def on_grid(self) -> bool:
        """Whether attention needs to know where a token lies."""
        return bool(self.window) or self.relative != "none"

    def windows(self, block: int) -> int:
        """Side of the windows of a block; 0 is global attention."""
        return 0 if block in self.global_layers else self.window

    def side(self, block: int) -> Size:
        """Grid (h, w) that the relative positions of a block are stored for."""
        window = self.windows(block)
        return (window, window) if window else self.relative_grid or self.grid


def options_grid(arch: Arch, options: DenseOptions) -> Size:
    """Grid (h, w) that dense options build for.

    Raises:
        ValueError: an image size that is not made of whole patches.
    """
    patch = options.patch_size or arch.patch_size
    height, width = options.image_size or (arch.grid[0] * patch, arch.grid[1] * patch)
    if height % patch or width % patch:
        raise ValueError(f"image_size {height} x {width} is not made of whole patches of {patch} pixels")
    return height // patch, width // patch


def adapt(arch: VitArch, options: DenseOptions) -> VitArch:
    """The architecture that is left when dense options are applied.

    Raises:
        ValueError: what is asked for cannot be had, such as windows with a class token.
    """
    grid = options_grid(arch, options)
    facts = arch.model_dump()
    facts["patch_size"] = patch = options.patch_size or arch.patch_size
    stored = arch.grid if options.stored_positions else grid
    facts["image_size"] = (stored[0] * patch, stored[1] * patch)
    if not options.keep_prefix:
        facts |= {"class_token": False, "num_registers": 0}
    if options.window:
        facts |= {"window": options.window, "global_layers": _from_end(options.global_layers, arch.depth)}
    if options.layer_scale is not None:
        facts["layer_scale"] = True
    facts["relative"] = _relative(arch, options)
    if facts["relative"] != "none" and (options.image_size or arch.relative == "none"):
        facts["relative_grid"] = grid
    return VitArch(**facts)


def adapt_weights(state: Mapping[str, Tensor], arch: VitArch, options: DenseOptions) -> dict[str, Tensor]:
    """Weights of `arch`, named as in the network, brought to `adapt(arch, options)`; what they lack stays missing."""
    target, state = adapt(arch, options), dict(state)
    if arch.positions:
        rows = arch.num_prefix_rows
        resized = resample(state["pos_embed"], arch.grid, target.grid, num_prefix=rows, antialias=options.antialias)
        state["pos_embed"] = resized[:, rows - target.num_prefix_rows :]
    state["patch_embed.proj.weight"] = resize_kernel(state["patch_embed.proj.weight"], target.patch_size)
    if not options.keep_prefix:
        state.pop("cls_token", None)
        state.pop("reg_token", None)
    for name, tensor in state.items():
        state[name] = _resized_relative(name, tensor, arch, target)
    if arch.relative == "shared_table" and target.relative == "table":
        shared = state.pop(f"rel_pos_bias.{relative.TABLE}")
        state |= {f"blocks.{block}.attn.{relative.TABLE}": shared for block in range(arch.depth)}
    return state


def _from_end(layers: tuple[int, ...], depth: int) -> tuple[int, ...]:
    if any(not -depth <= layer < depth for layer in layers):
        raise ValueError(f"layers {layers} of a backbone with {depth} blocks; use {-depth} to {depth - 1}")
    return tuple(layer % depth for layer in layers)


def _relative(arch: VitArch, options: DenseOptions) -> Relative:
    asked: Relative = "decomposed" if options.rel_pos else arch.relative
    if options.relative_table:
        asked = "table"
    # Fine-tuning a BEiT gives each block a copy of the table that all shared in pretraining.
    kinds = ("none", "shared_table", "table") if asked == "table" else ("none", asked)
    if arch.relative not in kinds or (options.rel_pos and options.relative_table):
        raise ValueError(f"relative positions of two kinds ({arch.relative} and {asked}); a network has one")
    return asked


def _resized_relative(name: str, tensor: Tensor, arch: VitArch, target: VitArch) -> Tensor:
    """A tensor of relative positions at the size the target stores it for; any other as it is."""
    kind = name.rpartition(".")[2]
    if kind not in relative.TENSORS:
        return tensor
    block = int(name.split(".")[1]) if name.startswith("blocks.") else None
    old = arch.side(block) if block is not None else arch.relative_grid or arch.grid
    new = target.side(block) if block is not None else target.relative_grid or target.grid
    if kind == relative.TABLE:
        return relative.resize_table(tensor, old, new)
    axis = 0 if kind == relative.ROWS else 1
    return relative.resize_line(tensor, 2 * new[axis] - 1)
