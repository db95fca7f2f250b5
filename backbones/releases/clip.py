"""The image towers of OpenAI's CLIP (arXiv 2103.00020), with its own activation `quick_gelu`."""

from backbones.releases import CLIP, Release

# arXiv 2103.00020, section 2.5: all of them.
EPOCHS = 32


def _release(size: str, patch: int, reference: tuple[str, str] | None = None) -> Release:
    timm = f"vit_{size}_patch{patch}_clip_quickgelu_224.openai"
    return Release("clip", "WIT-400M", "timm_vit", reference, timm, epochs=EPOCHS, licence="apache-2.0", statistics=CLIP)


RELEASES = {
    "clip_vit_base": _release("base", 16),
    "clip_vit_base_patch32": _release("base", 32),
    "clip_vit_large": _release("large", 14, ("CLIP", "ViT-L/14")),
}
