"""The code that checkpoints come from, to compare with: one file a library, those of the edges in `adapters/origin_*.py`.

A file here has the names of `Origin`. The network is made by the library's own code and filled with the file's own tensors by
the library's own rules, where it has such.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from backbones.contract import DenseOptions
from backbones.source import Source
from mae_bench.core.errors import InputError


@dataclass(frozen=True)
class Network:
    """A network of another library with the tensors of a file."""

    what: str
    """Which class of which library."""
    blocks: Callable[[Tensor], list[Tensor]]
    """From normalised images (1, 3, H, W) to what comes out of each block, (1, N, C)."""
    any_size: bool = True
    """Whether it takes images of other sizes than the file's own by the same rule for its positions."""
    options: DenseOptions = field(default_factory=DenseOptions)
    """How the suite's backbone is built to be compared with it."""


class Origin(Protocol):
    """What a file here has."""

    @staticmethod
    def fits(source: Source) -> bool:
        """Whether the names in the file are this library's."""
        ...

    @staticmethod
    def network(source: Source) -> Network:
        """Make the library's network with the tensors of the file.

        Raises:
            ModuleNotFoundError: the library is not installed.
            InputError: the library finds not all it needs in the file.
        """
        ...


def state_of(source: Source) -> dict[str, Tensor]:
    """The tensors of the network in a file, by the file's names and in float32; of `random:ARCH` those of seed 0."""
    if source.raw is None:
        return dict(source.weights())
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in source.raw.state.items()}


def fill(net: nn.Module, state: Mapping[str, Tensor], what: str, made_there: tuple[str, ...] = ()) -> None:
    """Load tensors into a library's network.

    Args:
        net: the network, in place.
        state: by its names; those it does not have are left.
        what: for the message.
        made_there: ends of names that the library makes itself.

    Raises:
        InputError: something it needs is not there.
    """
    told = net.load_state_dict(dict(state), strict=False)
    missing = [name for name in told.missing_keys if not name.endswith(made_there or ("\0",))]
    if missing:
        raise InputError(f"{what} does not find {missing[0]} in the file ({len(missing)} tensors)")


def listen(modules: list[nn.Module], run: Callable[[], Any]) -> list[Tensor]:
    """Run something and give what came out of some modules, as tokens (1, N, C)."""
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tokens = output[0] if isinstance(output, tuple) else output
        found.append(tokens.flatten(1, -2))

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found
