"""The augmentations of a masked autoencoder (arXiv 2111.06377, Table 1e)."""

from torchvision.transforms import v2

from backbones.contract import BackboneSpec
from mae_bench.objectives._parts import crop_and_flip
from mae_bench.objectives.mae import Config

JITTER = (0.4, 0.4, 0.4, 0.1)
"""Brightness, contrast, saturation, hue; the paper does not print its own, these are MoCo v2's (arXiv 2003.04297)."""


def crops(config: Config, spec: BackboneSpec) -> v2.Transform:
    """Make the transform that the settings name; uint8 in, uint8 out, of the backbone's image size."""
    if config.augmentation in ("none", "fixed_crop"):
        # The shorter side is brought to the size; what of the longer one is seen is the centre, or by chance.
        whole = v2.Resize(min(spec.image_size), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        if config.augmentation == "none":
            return v2.Compose([whole, v2.CenterCrop(spec.image_size)])
        return v2.Compose([whole, v2.RandomCrop(spec.image_size, pad_if_needed=True), v2.RandomHorizontalFlip(config.flip)])
    view = crop_and_flip(config, spec)
    if config.augmentation == "random_crop":
        return view
    return v2.Compose([view, v2.ToPILImage(), v2.ColorJitter(*JITTER), v2.PILToTensor()])
