"""Which parts of a backbone partial fine-tuning trains."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backbones.contract import Backbone

MLP_HALF = frozenset(("norm2", "mlp", "ls2", "drop_path2", "gamma_2"))
"""Parts of a block's MLP half, by timm's names."""


def last_blocks(backbone: "Backbone", blocks: float) -> Callable[[str], bool]:
    """Say of parameters and modules whether they belong to the last blocks, or come after them.

    Args:
        backbone: tells the depth of a name.
        blocks: how many; half a block is its MLP half.

    Returns:
        Takes a name below the backbone, with a dot at its end.
    """
    depth = backbone.spec.depth
    whole = int(blocks)
    first = depth - whole
    half = first if blocks > whole else None  # layer_id of the block whose MLP half is trained: block i has i + 1

    def trained(name: str) -> bool:
        if _holds_blocks(name):
            return False
        level = backbone.layer_id(name)
        if level == half:
            return any(part in MLP_HALF for part in name.split("."))
        return level > first  # the final norm has the highest level

    return trained


def _holds_blocks(name: str) -> bool:
    """Whether a module is one of those around the blocks: neither trained nor frozen itself."""
    return name.rstrip(".").rpartition(".")[2] in ("", "net", "blocks")
