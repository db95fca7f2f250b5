"""What a classification record says where a number is not quite what the name of its recipe promises."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backbones.contract import BackboneSpec
    from backbones.source import Source

SIZES = {"paper": (768, 12), "paper-large": (1024, 24), "paper-huge": (1280, 32)}
"""Width and depth of the network that the values of a recipe were published for: ViT-B, ViT-L, ViT-H."""
NAMES = {(768, 12): "ViT-B", (1024, 24): "ViT-L", (1280, 32): "ViT-H"}


def recipe_of(spec: "BackboneSpec") -> str | None:
    """The one of `SIZES` whose values were published for networks of this size, if any was."""
    return next((name for name, size in SIZES.items() if size == (spec.embed_dim, spec.depth)), None)


def other_size(source: "Source", recipe: str, like: str = "") -> tuple[str, ...]:
    """A line where the values of a recipe were published for a network of another size; `like` is one of `SIZES` of its size."""
    meant, found = SIZES.get(like or recipe), (source.spec.embed_dim, source.spec.depth)
    if meant is None or meant == found:
        return ()
    of_size = None if like else recipe_of(source.spec)
    fitting = f"; {of_size} is that of this size" if of_size else ""
    width, depth = found
    return (f"recipe {recipe} has the values of {NAMES[meant]}, and this network has width {width} and depth {depth}{fitting}",)


def no_final_norm(source: "Source") -> tuple[str, ...]:
    """A line where features cannot be taken after the final norm, since the network has none (MAE's fine-tuned files)."""
    if getattr(source.arch, "final_norm", True):
        return ()
    return ("the network has no final norm: features are taken as they leave the last block",)
