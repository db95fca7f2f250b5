"""`#key=value&key=value` at the end of SRC: which network of a file is meant, and what no file says of it."""

import re
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat, PositiveInt, field_validator

from backbones.arch import Mlp
from backbones.contract import Interpolation
from mae_bench.core.config import Config, build, nearest
from mae_bench.core.errors import ConfigError

Rgb = tuple[float, float, float]
MIN_HEX = 8
SIZE = re.compile(r"(\d+)x(\d+)")
ARCH = ("num_heads", "norm_eps", "mlp")
"""Facts of the architecture that no tensor is shaped by."""


class Fragment(Config):
    """What stands after the `#`."""

    ckpt_key: str = ""
    """Which network of several: a key of the file, keys joined by dots, or the beginning of the names of its tensors."""
    sha256: str = ""
    """First 8 or more hex digits of the hash that the file must have."""
    num_heads: PositiveInt | None = None
    norm_eps: PositiveFloat | None = None
    mlp: Mlp | None = None
    mean: Rgb | None = None
    """Per-channel mean of the input in RGB order, for pixels in 0..1: `0.5/0.5/0.5`."""
    std: Rgb | None = None
    interpolation: Interpolation | None = None
    """How images are resized to the input."""
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width in pixels that the position embeddings belong to: `224x448`."""

    @field_validator("sha256")
    @classmethod
    def _is_hex(cls, text: str) -> str:
        if text and not re.fullmatch(rf"[0-9a-fA-F]{{{MIN_HEX},64}}", text):
            raise ValueError(f"give {MIN_HEX} to 64 hex digits")
        return text.lower()

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _is_rgb(cls, text: Any) -> Any:
        return tuple(text.split("/")) if isinstance(text, str) else text

    @field_validator("image_size", mode="before")
    @classmethod
    def _is_size(cls, text: Any) -> Any:
        if isinstance(text, str):
            found = SIZE.fullmatch(text)
            if not found:
                raise ValueError("give height and width in pixels, such as 224x448")
            return found.groups()
        return text

    @field_validator("std")
    @classmethod
    def _is_positive(cls, value: Rgb | None) -> Rgb | None:
        if value and min(value) <= 0:
            raise ValueError("a standard deviation is above 0")
        return value

    def given(self, *names: str) -> dict[str, Any]:
        """Those of some settings that were given."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def changes(self) -> dict[str, Any]:
        """What makes another network of the same file: all but the hash."""
        return self.model_dump(mode="json", exclude={"sha256"}, exclude_defaults=True)

    def notes(self) -> tuple[str, ...]:
        """Sentences for the ledger."""
        facts = self.given(*ARCH, "mean", "std", "interpolation", "image_size")
        return tuple(f"{name} is {_text(value)} because the user says so" for name, value in facts.items())


def split(source: str) -> tuple[str, str]:
    """Part SRC from its fragment; what exists as it stands is a path.

    Raises:
        ConfigError: a `#` after a path, and nothing like key=value behind it.
    """
    if exists(source):
        return source, ""
    body, mark, text = source.rpartition("#")
    if mark and re.match(r"\w*=", text):
        return body, text
    if mark and exists(body):
        raise ConfigError(f"{source}: {text!r} is not key=value; write for example #ckpt_key={text or 'teacher'}")
    return source, ""


def parse(source: str, text: str) -> Fragment:
    """Read the fragment of a SRC.

    Raises:
        ConfigError: an unknown key, with the nearest known one; a value that cannot be.
    """
    values: dict[str, str] = {}
    for word in text.split("&") if text else ():
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ConfigError(f"{source}: {word!r} is not key=value; write for example #ckpt_key=teacher")
        if key in values:
            raise ConfigError(f"{source}: {key} is given twice; keep one")
        if key not in Fragment.model_fields:
            raise ConfigError(f"{source}: unknown key {key!r} after the '#'; {nearest(key, list(Fragment.model_fields))}")
        values[key] = value
    return build(Fragment, values, where=source)


def _text(value: Any) -> str:
    return "/".join(f"{part:g}" for part in value) if isinstance(value, tuple) else str(value)


def exists(text: str) -> bool:
    """Whether there is something at a path; text that cannot even be one has nothing."""
    try:
        return Path(text).exists() or Path(text).is_symlink()
    except (OSError, ValueError):
        return False
