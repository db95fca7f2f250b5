"""Supervised on ImageNet-1K: DeiT (arXiv 2012.12877) and DeiT III (arXiv 2204.07118) of facebookresearch/deit.

300 epochs (README_deit.md, "Training") and 800 (README_revenge.md, its training commands), to which 20 at 224 pixels are added
for base, large and huge. The digits in DeiT's file names begin the files' SHA-256, as torch.hub has it.
"""

from backbones.releases import Release

PLACE = "https://dl.fbaipublicfiles.com/deit/"


def _deit(size: str, digits: str) -> Release:
    name = f"deit_{size}_patch16_224"
    # The tables have no rows of DeiT-Ti.
    reference = None if size == "tiny" else ("DeiT", f"{name}@224")
    url = f"{PLACE}{name}-{digits}.pth"
    timm = f"{name}.fb_in1k"
    return Release("supervised", "IN1K", "timm_vit", reference, timm, url, sha256=digits, epochs=300, licence="apache-2.0")


def _deit3(size: str, patch: int) -> Release:
    name = f"deit3_{size}_patch{patch}_224"
    url = f"{PLACE}deit_3_{size}_224_1k.pth"
    reference = ("DeiT III", f"{name}@224")
    return Release("supervised", "IN1K", "timm_vit", reference, f"{name}.fb_in1k", url, epochs=800, licence="apache-2.0")


RELEASES = {
    "deit_tiny": _deit("tiny", "a1311bcf"),
    "deit_small": _deit("small", "cd65a155"),
    "deit_base": _deit("base", "b5f2ef4d"),
    "deit3_small": _deit3("small", 16),
    "deit3_base": _deit3("base", 16),
    "deit3_large": _deit3("large", 16),
    "deit3_huge": _deit3("huge", 14),
}
