"""BEiT and BEiT v2 (arXiv 2106.08254, 2208.06366) as timm has them: pretrained, then fine-tuned with labels.

The weights before fine-tuning are not in timm's catalogue; a local file of them goes into `-m` by its path.
"""

from backbones.releases import HALF, IMAGENET, Release


def _release(version: str, size: str, timm: str, data: str, *, half: bool) -> Release:
    name = f"{version}_{size}_patch16_224"
    return Release(version, data, "beit", None, f"{name}.{timm}", licence="apache-2.0", statistics=HALF if half else IMAGENET)


RELEASES = {
    "beit_base_ft22k": _release("beit", "base", "in22k_ft_in22k", "IN22K + labels", half=True),
    "beit_large_ft22k": _release("beit", "large", "in22k_ft_in22k", "IN22K + labels", half=True),
    "beitv2_base_ft1k": _release("beitv2", "base", "in1k_ft_in1k", "IN1K + labels", half=False),
    "beitv2_large_ft1k": _release("beitv2", "large", "in1k_ft_in1k", "IN1K + labels", half=False),
}
