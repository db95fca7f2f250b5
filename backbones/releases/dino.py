"""DINO (arXiv 2104.14294): the teachers of facebookresearch/dino.

Lengths of training: arXiv 2111.07832, table 2, and of ViT-B/8 arXiv 2301.08243, table 1; nobody states that of ViT-S/8.
"""

from backbones.releases import Release

PLACE = "https://dl.fbaipublicfiles.com/dino/"


def _release(file: str, arch: str, timm: str, epochs: int | None = None) -> Release:
    url = f"{PLACE}{file}/{file}.pth"
    return Release("dino", "IN1K", "timm_vit", ("DINO", arch), timm, url, epochs=epochs, licence="apache-2.0")


RELEASES = {
    "dino_vit_small": _release("dino_deitsmall16_pretrain", "ViT-S/16", "vit_small_patch16_224.dino", 800),
    "dino_vit_small_patch8": _release("dino_deitsmall8_pretrain", "ViT-S/8", "vit_small_patch8_224.dino"),
    "dino_vit_base": _release("dino_vitbase16_pretrain", "ViT-B/16", "vit_base_patch16_224.dino", 400),
    "dino_vit_base_patch8": _release("dino_vitbase8_pretrain", "ViT-B/8", "vit_base_patch8_224.dino", 300),
}
