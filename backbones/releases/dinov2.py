"""DINOv2 (arXiv 2304.07193) with and without registers: facebookresearch/dinov2. All but the giant are distilled from it."""

from backbones.releases import Release

PLACE = "https://dl.fbaipublicfiles.com/dinov2/"


def _release(letter: str, size: str, *, registers: bool = False) -> Release:
    arch = f"ViT-{letter}/14" if letter == "g" else f"ViT-{letter.upper()}/14 (distilled)"
    name = f"dinov2_vit{letter}14"
    return Release(
        "dinov2",
        "LVD-142M",
        "dinov2",
        ("DINOv2 + 4 registers" if registers else "DINOv2", arch),
        f"vit_{size}_patch14_{'reg4_' * registers}dinov2.lvd142m",
        f"{PLACE}{name}/{name}_{'reg4_' * registers}pretrain.pth",
        licence="apache-2.0",
    )


RELEASES = {
    "dinov2_vit_small": _release("s", "small"),
    "dinov2_vit_base": _release("b", "base"),
    "dinov2_vit_large": _release("l", "large"),
    "dinov2_vit_giant": _release("g", "giant"),
    "dinov2_reg4_vit_small": _release("s", "small", registers=True),
    "dinov2_reg4_vit_base": _release("b", "base", registers=True),
    "dinov2_reg4_vit_large": _release("l", "large", registers=True),
    "dinov2_reg4_vit_giant": _release("g", "giant", registers=True),
}
