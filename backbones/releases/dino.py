"""DINO (arXiv 2104.14294): the teachers of facebookresearch/dino."""

from backbones.releases import Release

PLACE = "https://dl.fbaipublicfiles.com/dino/"


def _release(file: str, arch: str, timm: str) -> Release:
    return Release("dino", "IN1K", ("DINO", arch), timm, f"{PLACE}{file}/{file}.pth", licence="apache-2.0")


RELEASES = {
    "dino_vit_small": _release("dino_deitsmall16_pretrain", "ViT-S/16", "vit_small_patch16_224.dino"),
    "dino_vit_small_patch8": _release("dino_deitsmall8_pretrain", "ViT-S/8", "vit_small_patch8_224.dino"),
    "dino_vit_base": _release("dino_vitbase16_pretrain", "ViT-B/16", "vit_base_patch16_224.dino"),
    "dino_vit_base_patch8": _release("dino_vitbase8_pretrain", "ViT-B/8", "vit_base_patch8_224.dino"),
}
