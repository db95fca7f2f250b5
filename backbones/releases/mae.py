"""MAE (arXiv 2111.06377): the encoders of facebookresearch/mae, pretrained for 1600 epochs; MD5 as its README prints them."""

from backbones.releases import Release

PLACE = "https://dl.fbaipublicfiles.com/mae/pretrain/"
LICENCE = "cc-by-nc-4.0"


def _release(size: str, arch: str, timm: str, md5: str) -> Release:
    return Release(
        "mae",
        "IN1K",
        "mae",
        ("MAE", arch),
        timm,
        f"{PLACE}mae_pretrain_vit_{size}.pth",
        md5,
        epochs=1600,
        licence=LICENCE,
    )


RELEASES = {
    "mae_vit_base": _release("base", "ViT-B/16", "vit_base_patch16_224.mae", "8cad7c"),
    "mae_vit_large": _release("large", "ViT-L/16", "vit_large_patch16_224.mae", "b8b06e"),
    "mae_vit_huge": _release("huge", "ViT-H/14", "vit_huge_patch14_224.mae", "9bdbb0"),
}
