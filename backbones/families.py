"""Which family of checkpoints a file is of: each file in `formats/` recognises one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol, cast

from torch import Tensor

from backbones.contract import BackboneSpec
from backbones.ledger import first
from backbones.reading import RawCheckpoint
from mae_bench.core import find
from mae_bench.core.config import Config
from mae_bench.core.errors import InputError

ROOM = "backbones.formats"


@dataclass(frozen=True)
class Converted:
    """A checkpoint in the terms of a file in `zoo/`."""

    zoo: str
    """The file in `zoo/` that makes the network."""
    arch: Config
    """That file's own `Arch`."""
    spec: BackboneSpec
    state: Mapping[str, Tensor]
    """Tensors of the file by the network's names."""
    renamed: frozenset[str] = frozenset()
    """Names in `state` that the file calls differently."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Tensors of the file left out, with the reason; a decoder's, a head's."""
    notes: tuple[str, ...] = ()


class Evidence(IntEnum):
    """What a family is recognised by. Families share names of tensors, so the strongest evidence decides."""

    NAMES = 1
    """Names and shapes."""
    MARK = 2
    """Names, and something that only this family has: a decoder, its position table."""
    HEADER = 3
    """The file says so."""


class Family(Protocol):
    """What a file in `formats/` has."""

    NAME: str
    """For messages: what the files are and where they come from."""
    EVIDENCE: Evidence
    """What `recognise` goes by."""

    @staticmethod
    def recognise(raw: RawCheckpoint) -> bool:
        """Whether a file is of this family, from its names, shapes and metadata; no other family is asked."""
        ...

    @staticmethod
    def convert(raw: RawCheckpoint) -> Converted:
        """Bring the tensors under the network's names and say what the network is.

        Raises:
            InputError: a part that the network does not have, or shapes that fit none.
        """
        ...


def identify(raw: RawCheckpoint) -> Family:
    """Find the family of a file.

    Raises:
        InputError: none, or several.
    """
    families = {name: cast(Family, find.load(ROOM, name, what="format")) for name in find.names(ROOM)}
    found = [name for name, family in families.items() if family.recognise(raw)]
    strongest = max((families[name].EVIDENCE for name in found), default=None)
    found = [name for name in found if families[name].EVIDENCE == strongest]
    if len(found) == 1:
        return families[found[0]]
    keys = first(list(raw.state))
    if found:
        raise InputError(f"{raw.path}: could be {' or '.join(found)} (tensors: {keys}); save it in the layout of one of them")
    known = "; ".join(f"{name} = {family.NAME}" for name, family in families.items())
    raise InputError(f"{raw.path}: no known kind of checkpoint (tensors: {keys}); known: {known}")
