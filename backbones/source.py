"""`-m` of the command line: where a backbone comes from, opened once, built as often as a task asks.

`NAME=SRC` or SRC; SRC is `random:ARCH`, `timm:NAME`, `hf:ORG/NAME`, a checkpoint file, a folder with `model.safetensors` in it
(as `pretrain` or transformers leave it), or the bare name of an architecture, which means `random:ARCH`. A SRC with weights may
end in `#key=value&key=value` (`fragment.py`): which network of the file is meant, and what the file does not say.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from backbones import dense_ledger, fragment, loading, reading, released, told_by, trusted
from backbones.asked import Asked, default_name, parse
from backbones.contract import Backbone, BackboneSpec, DenseOptions
from backbones.families import Converted, identify
from backbones.forms import unknown_architecture, unknown_source
from backbones.initial import VERSION
from backbones.ledger import Ledger
from backbones.reading import RawCheckpoint
from backbones.zoo import Zoo
from mae_bench.core import find
from mae_bench.core.config import Config
from mae_bench.core.errors import ConfigError, InputError

ZOO = "backbones.zoo"


@dataclass(frozen=True, eq=False)
class Source:
    """A checkpoint that is read and checked; backbones with its weights are built from it."""

    name: str
    """For tables and folders."""
    text: str
    """SRC as it was given."""
    spec: BackboneSpec
    ledger: Ledger
    arch: Config
    family: str
    """What kind of checkpoint it is: `NAME` of the file in `formats/`; empty for `random:ARCH`."""
    _zoo: Zoo = field(repr=False)
    _weights: Mapping[str, Tensor] | None = field(repr=False)
    """By the network's names, maybe mapped; None draws them from the seed of each build."""
    _raw: RawCheckpoint | None = field(repr=False)
    _changes: str = field(default="", repr=False)
    """What makes another network of the same file, as text."""

    @property
    def sha256(self) -> str:
        """What tells this network from others: the hash of the checkpoint file.

        Of the text `random:ARCH`, and the version of how weights are drawn, where there is no file. Where the fragment of SRC,
        JSON files beside the weights or a partial load make another network of the same file, of the file's hash and of what
        they say; `raw_facts` has the file's own. Waits until the file is hashed.

        Raises:
            InputError: the file was written to since it was opened.
        """
        if self._raw is None:
            return _hash_of(self.text.rpartition(":")[2], f"random {VERSION}:")
        return _hash_of(self._changes, f"{self._raw.sha256}#") if self._changes else self._raw.sha256

    @property
    def raw_facts(self) -> Mapping[str, Any]:
        """What the file itself says, empty for random: path, sha256, settings, prefix, config, preprocessor, metadata."""
        if self._raw is None:
            return {}
        names = ("sha256", "settings", "prefix", "config", "preprocessor", "metadata")
        return {"path": str(self._raw.path), **{name: getattr(self._raw, name) for name in names}}

    @property
    def raw(self) -> RawCheckpoint | None:
        """What was read, with the file's own names; None for `random:ARCH`."""
        return self._raw

    def weights(self, seed: int = 0) -> Mapping[str, Tensor]:
        """The weights by the network's names, to look at one by one: they may be mapped, so copy what is kept."""
        return self._zoo.initial_weights(self.arch, seed) if self._weights is None else self._weights

    def build(self, options: DenseOptions | None = None, *, seed: int = 0) -> Backbone:
        """Make a module of its own with the weights.

        Args:
            options: what a dense task asks for.
            seed: of the initialisation, for `random:ARCH`; a checkpoint ignores it.

        Raises:
            InputError: the checkpoint file was written to since it was opened.
        """
        if self._raw is None or self._weights is None:
            return self._zoo.assemble(self.arch, self.spec, self._zoo.initial_weights(self.arch, seed), options)
        # Before, since pages that are cut off a file end the program; after, since what was copied must be what was checked.
        self._raw.verify()
        backbone = self._zoo.assemble(self.arch, self.spec, self._weights, options)
        self._raw.verify()
        return backbone

    def ledger_for(self, options: DenseOptions) -> Ledger:
        """The ledger with what dense options change: what is resized, left out, and made anew."""
        return dense_ledger.with_options(self.ledger, self._zoo, self.arch, self.spec, options)


def open_source(text: str, *, allow_partial: bool = False, trust_pickle: str = "") -> Source:
    """Open what `-m` names.

    Args:
        text: `NAME=SRC` or SRC.
        allow_partial: start tensors that the file lacks at random (seed 0) and leave out those that nobody knows, saying so.
        trust_pickle: the whole SHA-256 of a file that may be unpickled in full, code included (`trusted.read_trusted`).

    Raises:
        ConfigError: text of no known form, or an architecture or name that is none.
        InputError: a checkpoint that cannot be used as it is.
    """
    asked = parse(text, allow_partial=allow_partial, trust_pickle=trust_pickle)
    source = asked.source
    kind, colon, rest = source.partition(":")
    if colon and kind in OPENERS:
        return OPENERS[kind](asked, rest)
    if source in released.releases():
        return _open_release(asked, source)
    if source in _variants():
        return _open_random(asked, source)
    return _open_path(asked)


def _zoo(name: str) -> Zoo:
    return cast(Zoo, find.load(ZOO, name, what="architecture family"))


def _variants() -> dict[str, Zoo]:
    """The zoo's files by the names of their architectures."""
    files = [_zoo(name) for name in find.names(ZOO)]
    return {variant: file for file in files for variant in file.VARIANTS}


def _open_random(asked: Asked, variant: str) -> Source:
    zoo = _variants().get(variant)
    if zoo is None:
        raise unknown_architecture(asked.source, variant, list(_variants()))
    if asked.text != asked.source or asked.trust_pickle:
        raise ConfigError(f"{asked.text}: random weights come from no file, so nothing can be said of one; leave it out")
    arch = zoo.VARIANTS[variant]
    spec = zoo.spec_of(arch, method="random", pretrain_data="none")
    ledger = Ledger(notes=("weights are random",))
    return Source(asked.name or "random", asked.text, spec, ledger, arch, "", zoo, None, None)


def _open_timm(asked: Asked, model: str) -> Source:
    from backbones import hub

    net = hub.timm_network(model)
    raw = _read(asked, hub.timm_file(model, net))
    return _opened(asked, model, raw, lambda converted: hub.with_facts(raw.path, converted, net))


def _open_hf(asked: Asked, model: str) -> Source:
    from backbones import hub

    return _opened(asked, model, _read(asked, hub.hf_folder(model)))


def _open_release(asked: Asked, name: str) -> Source:
    """A published checkpoint: from the user's folder, else from timm's catalogue."""
    path = released.local_file(name)
    if path is None and not released.releases()[name].timm:
        raise released.where_to_get(name)
    return _open_released_file(asked, name, path)


def _open_released_file(asked: Asked, name: str, path: Path | None) -> Source:
    """A published checkpoint in a local file; None fetches it from timm's catalogue."""
    from backbones import hub

    model = released.releases()[name].timm
    net = hub.timm_network(model) if model else None
    if path is None:
        raw = _read(asked, hub.timm_file(model, net))
    else:
        released.check_hash(name, path)
        raw = _read(asked, path)

    def facts(converted: Converted) -> Converted:
        known = converted if net is None else hub.with_facts(raw.path, converted, net)
        return released.as_released(known, name)

    return _opened(asked, name, raw, facts)


def _open_path(asked: Asked) -> Source:
    path = Path(asked.source)
    if not fragment.exists(asked.source) and not path.suffix and "/" not in asked.source:
        raise unknown_source(asked.source, [*_variants(), *released.releases()])
    if asked.name in released.releases():
        return _open_released_file(asked, asked.name, path)
    raw = _read(asked, path)
    in_folder = raw.path.name in reading.WEIGHTS
    return _opened(asked, raw.path.resolve().parent.name if in_folder else raw.path.stem, raw)


OPENERS: dict[str, Callable[[Asked, str], Source]] = {"random": _open_random, "timm": _open_timm, "hf": _open_hf}
"""What stands before the colon of a SRC."""


def _read(asked: Asked, path: Path) -> RawCheckpoint:
    """Read a file or folder, and see that it is the one that was asked for."""
    key = asked.told.ckpt_key
    if asked.trust_pickle:
        raw = trusted.read_trusted(path, asked.trust_pickle, ckpt_key=key)
    else:
        raw = reading.read_folder(path, ckpt_key=key) if path.is_dir() else reading.read(path, ckpt_key=key)
    if asked.told.sha256 and not raw.sha256.startswith(asked.told.sha256):
        raise InputError(f"{raw.path}: its SHA-256 is {raw.sha256}, not {asked.told.sha256}...; download the right file")
    return replace(raw, facts=asked.told.given(*fragment.ARCH, "image_size"))


def _opened(asked: Asked, name: str, raw: RawCheckpoint, facts: Callable[[Converted], Converted] | None = None) -> Source:
    told, family = asked.told, identify(raw)
    converted = (facts or told_by.beside(raw))(family.convert(raw))
    zoo = _zoo(converted.zoo)
    converted = told_by.user(converted, zoo, told, asked.text)
    weights, ledger = loading.check(raw, converted, zoo, allow_partial=asked.allow_partial)
    ledger = replace(ledger, notes=(*ledger.notes, *told.notes()))
    name = asked.name or default_name(f"{name}-{told.ckpt_key}" if told.ckpt_key else name)
    partial = {"partial": True} if ledger.missing or ledger.unexpected else {}
    drawn = {"drawn": VERSION} if ledger.missing else {}
    changes = {**told_by.apart(raw, converted, told), **partial, **drawn}
    text = json.dumps(changes, sort_keys=True) if changes else ""
    return Source(name, asked.text, converted.spec, ledger, converted.arch, family.NAME, zoo, weights, raw, text)


def _hash_of(text: str, kind: str) -> str:
    return hashlib.sha256(f"{kind}{text}".encode()).hexdigest()
