"""Kinds of setting that several configs share, checked when they are set and not when they are used."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

# timm's text form of a RandAugment policy: `rand-m9-mstd0.5-inc1`.
POLICY = r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?|-tweights)*"


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the smaller share comes first, not {pair[0]} before {pair[1]}")
    return pair


def _policy(text: str) -> str:
    if text and not re.fullmatch(POLICY, text):
        raise ValueError("no RandAugment policy; write for example rand-m9-mstd0.5-inc1, or nothing for none")
    return text


_Share = Annotated[float, Field(gt=0, le=1)]
_Beta = Annotated[float, Field(ge=0, lt=1)]

Chance = Annotated[float, Field(ge=0, le=1)]
"""A probability."""
CropScale = Annotated[tuple[_Share, _Share], AfterValidator(_ordered)]
"""Smallest and largest area of a random crop, as shares of the image."""
Betas = tuple[_Beta, _Beta]
"""Decay of Adam's two running means."""
RandAugment = Annotated[str, AfterValidator(_policy)]
"""timm's name of a RandAugment policy (arXiv 1909.13719); empty is off."""
