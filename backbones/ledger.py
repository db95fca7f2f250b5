"""What became of every tensor of a checkpoint: nothing is loaded, left out or made up in silence."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mae_bench.core.errors import InputError

SHOWN = 5


@dataclass(frozen=True)
class Ledger:
    """Names of tensors by what became of them."""

    matched: tuple[str, ...] = ()
    """Taken as they are."""
    converted: tuple[str, ...] = ()
    """Taken under another name, or cast to float32."""
    resized: tuple[str, ...] = ()
    """Interpolated to another size."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Left out, with the reason."""
    new: tuple[str, ...] = ()
    """Made here because a dense option asks for them; zero at the start."""
    missing: tuple[str, ...] = ()
    """Needed, and not in the file."""
    unexpected: tuple[str, ...] = ()
    """In the file, and nobody knows what for."""
    notes: tuple[str, ...] = ()
    """Sentences for whoever reads the record."""

    def summary(self) -> dict[str, int]:
        """How many tensors each became of."""
        kinds = ("matched", "converted", "resized", "dropped", "new", "missing", "unexpected")
        return {kind: len(getattr(self, kind)) for kind in kinds}

    def check(self, where: object, looks_like: str) -> None:
        """Refuse a load that would leave something random or unexplained.

        Raises:
            InputError: tensors are missing, or are there and are not used.
        """
        for kind in ("missing", "unexpected"):
            names = getattr(self, kind)
            if names:
                raise InputError(f"{where}: {len(names)} {kind} tensors ({first(names)}); it looks like {looks_like} otherwise")


def first(names: tuple[str, ...] | list[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def compare(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], changed: set[str], dropped: Mapping[str, str]) -> Ledger:
    """Set what a file holds, by the network's names, against what the network needs.

    Args:
        state: converted tensors of the file.
        wanted: the network's own tensors.
        changed: those of `state` that were renamed or cast.
        dropped: tensors of the file that are not in `state`, with the reasons.
    """
    both = [name for name in wanted if name in state]
    return Ledger(
        matched=tuple(name for name in both if name not in changed),
        converted=tuple(name for name in both if name in changed),
        dropped=dict(dropped),
        missing=tuple(name for name in wanted if name not in state),
        unexpected=tuple(name for name in state if name not in wanted),
    )
