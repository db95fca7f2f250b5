"""What tests of formats look at."""

from pathlib import Path
from types import ModuleType
from typing import cast

import torch

from backbones import reading
from backbones.arch import VitArch
from backbones.families import identify
from backbones.zoo import vit

NOTHING = {"matched": 0, "converted": 0, "resized": 0, "dropped": 0, "new": 0, "missing": 0, "unexpected": 0}


def pictures(height=32, width=32):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def family(path):
    found = cast(ModuleType, identify(reading.read(Path(path))))
    return found.__name__.rpartition(".")[2]


def facts_of(source):
    return cast(VitArch, source.arch)


def weights(source, options=None):
    return vit.weights_of(source.build(options))
