"""Supervised on ImageNet-21K: "How to train your ViT?" (arXiv 2106.10270) of google-research/vision_transformer, 300 epochs."""

from backbones.releases import HALF, Release

PLACE = "https://storage.googleapis.com/vit_models/augreg/"


def _release(size: str, file: str) -> Release:
    timm = f"vit_{size}_patch16_224.augreg_in21k"
    return Release(
        "supervised",
        "IN21K",
        "augreg",
        None,
        timm,
        f"{PLACE}{file}.npz",
        epochs=300,
        licence="apache-2.0",
        statistics=HALF,
    )


RELEASES = {
    "augreg_vit_tiny": _release("tiny", "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"),
    "augreg_vit_small": _release("small", "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0"),
    "augreg_vit_base": _release("base", "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"),
    "augreg_vit_large": _release("large", "L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1"),
}
