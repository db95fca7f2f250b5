"""Architectures by name: one file a family of networks.

A file here has the names of `Zoo`; the names in its `VARIANTS` are the architectures of the command line.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from backbones.contract import Backbone, BackboneSpec, DenseOptions, Interpolation
from mae_bench.core.config import Config

Rgb = tuple[float, float, float]


class Zoo(Protocol):
    """What a file in `zoo/` has."""

    VARIANTS: Mapping[str, Any]
    """Architectures by name, each an `Arch`."""
    Arch: type[Config]
    """Everything a network is built from; written into the header of saved files."""

    @staticmethod
    def initial_weights(arch: Any, seed: int) -> dict[str, Tensor]:
        """Random weights that depend on the seed alone."""
        ...

    @staticmethod
    def empty(arch: Any, spec: BackboneSpec, dense: DenseOptions | None = None) -> Backbone:
        """Make a backbone without memory for its weights (on the meta device), for the names and shapes of them."""
        ...

    @staticmethod
    def assemble(arch: Any, spec: BackboneSpec, weights: Mapping[str, Tensor], dense: DenseOptions | None = None) -> Backbone:
        """Make a backbone with copies of the weights, adapted to the dense options."""
        ...

    @staticmethod
    def weights_of(backbone: Backbone) -> dict[str, Tensor]:
        """The weights of a backbone by the names that `assemble` takes."""
        ...

    @staticmethod
    def spec_of(
        arch: Any,
        *,
        mean: Rgb = ...,
        std: Rgb = ...,
        method: str = ...,
        pretrain_data: str = ...,
        interpolation: Interpolation = ...,
    ) -> BackboneSpec:
        """What consumers are told of an architecture."""
        ...

    @staticmethod
    def name_of(arch: Any) -> str:
        """The variant an architecture is, or a name made of its numbers."""
        ...

    @staticmethod
    def looks_like(path: Path, state: Mapping[str, Tensor], **known: Any) -> str:
        """The name of the architecture that the shapes of tensors fit, for messages; `known` are fields that the user says."""
        ...
