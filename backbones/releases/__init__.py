"""Published checkpoints by name: one file a method, each with `RELEASES`. Nothing here loads torch.

What a source does not state is left out: no hash, length of training or licence is guessed.
"""

from dataclasses import dataclass
from typing import Literal

Rgb = tuple[float, float, float]
IMAGENET: tuple[Rgb, Rgb] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: tuple[Rgb, Rgb] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# timm's OPENAI_CLIP_MEAN and OPENAI_CLIP_STD.
CLIP: tuple[Rgb, Rgb] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Release:
    """One published checkpoint."""

    method: str
    """How it was pretrained, as in a `BackboneSpec`."""
    pretrain_data: str
    family: str
    """The file of `formats/` that reads it as its authors publish it; as timm has it, where it is only there."""
    reference: tuple[str, str] | None
    """Method and architecture of its rows among the published numbers (`results/reference`)."""
    timm: str = ""
    """Its name in timm's catalogue, from which it is fetched."""
    url: str = ""
    """Where its authors publish it; the last part is the official name of the file."""
    md5: str = ""
    """First hex digits of the official file's MD5, where its authors state them."""
    sha256: str = ""
    """The same of its SHA-256."""
    epochs: int | None = None
    licence: str = ""
    statistics: tuple[Rgb, Rgb] = IMAGENET
    """Mean and std of the input, in RGB for pixels in 0..1."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """How images are resized to the input."""

    @property
    def file(self) -> str:
        """The official name of the file; empty where it is only in timm's catalogue."""
        return self.url.rpartition("/")[2]

    @property
    def told(self) -> str:
        """In a line."""
        length = f", {self.epochs} epochs" if self.epochs else ""
        place = f"timm:{self.timm}" if self.timm else self.url
        return f"{self.method} on {self.pretrain_data}{length}; {place}"
