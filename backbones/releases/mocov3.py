"""MoCo v3 (arXiv 2104.02057): the two Vision Transformers that facebookresearch/moco-v3 publishes, 300 epochs."""

from backbones.releases import Release

PLACE = "https://dl.fbaipublicfiles.com/moco-v3/"

RELEASES = {
    "mocov3_vit_small": Release(
        "mocov3", "IN1K", ("MoCo v3", "ViT-S/16"), url=f"{PLACE}vit-s-300ep/vit-s-300ep.pth.tar", epochs=300
    ),
    "mocov3_vit_base": Release(
        "mocov3", "IN1K", ("MoCo v3", "ViT-B/16"), url=f"{PLACE}vit-b-300ep/vit-b-300ep.pth.tar", epochs=300
    ),
}
