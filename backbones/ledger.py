"""What became of every tensor of a checkpoint: nothing is loaded, left out or made up in silence."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mae_bench.core.errors import InputError
from mae_bench.core.plural import counted

SHOWN = 5
KINDS = ("matched", "converted", "resized", "dropped", "new", "missing", "unexpected")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """What became of one tensor."""

    name: str
    """By the network's names; of those that are left out, by the file's."""
    kind: str
    """One of `KINDS`."""
    reason: str
    """Why, where it is not taken as it is."""
    shape: Shape | None
    """As the network has it; of those that are left out, as the file has it; None for what is no tensor."""


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
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why tensors of the other kinds are where they are, for those that have a reason of their own."""
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    """Shapes by name; see `Row.shape`."""

    def summary(self) -> dict[str, int]:
        """How many tensors each became of."""
        return {kind: len(getattr(self, kind)) for kind in KINDS}

    def rows(self) -> tuple[Row, ...]:
        """Every tensor with what became of it, for display: what is not as it should be first, what is taken as it is last."""
        reasons = {**REASONS, **{(kind, name): why for kind in KINDS for name, why in self.reasons.items()}}
        reasons |= {("dropped", name): why for name, why in self.dropped.items()}
        return tuple(
            Row(name, kind, reasons.get((kind, name), reasons.get((kind, ""), "")), self.shapes.get(name))
            for kind in reversed(KINDS)
            for name in getattr(self, kind)
        )

    def check(self, where: object, looks_like: str) -> None:
        """Refuse a load that would leave something random or unexplained.

        Raises:
            InputError: tensors are missing, or are there and are not used.
        """
        for kind in ("missing", "unexpected"):
            names = getattr(self, kind)
            if names:
                raise InputError(
                    f"{where}: {counted(len(names), f'{kind} tensor')} ({first(names)}); it looks like {looks_like} otherwise; "
                    "to go on without them, which the record will say, add --allow-partial"
                )


REASONS = {
    ("new", ""): "asked for by the dense options; starts at zero",
    ("resized", ""): "interpolated to the size that the dense options ask for",
    ("missing", ""): "needed, and not in the file",
    ("unexpected", ""): "in the file, and nobody knows what for",
}
"""What is said of kinds whose tensors have no reasons of their own."""


def first(names: Collection[str], shown: int = SHOWN) -> str:
    """The first few of many names."""
    names = list(names)
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


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
        shapes={name: tuple(tensor.shape) for name, tensor in {**state, **wanted}.items()},
    )
