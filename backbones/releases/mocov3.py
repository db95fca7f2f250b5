"""MoCo v3 (arXiv 2104.02057): the two Vision Transformers that facebookresearch/moco-v3 publishes, 300 epochs.

The licence is that of the repository (README.md).
"""

from backbones.releases import Release

PLACE = "https://dl.fbaipublicfiles.com/moco-v3/"


def _release(letter: str) -> Release:
    name = f"vit-{letter}-300ep"
    reference = ("MoCo v3", f"ViT-{letter.upper()}/16")
    url = f"{PLACE}{name}/{name}.pth.tar"
    return Release("mocov3", "IN1K", "mocov3", reference, url=url, epochs=300, licence="cc-by-nc-4.0")


RELEASES = {"mocov3_vit_small": _release("s"), "mocov3_vit_base": _release("b")}
