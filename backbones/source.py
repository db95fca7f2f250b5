"""`-m` of the command line: where a backbone comes from, opened once, built as often as a task asks.

`NAME=SRC` or SRC; SRC is `random:ARCH`, `timm:NAME`, a checkpoint file, a folder with `model.safetensors` in it (as `pretrain`
leaves it), or the bare name of an architecture, which means `random:ARCH`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from torch import Tensor

from backbones import loading, reading
from backbones.contract import Backbone, BackboneSpec, DenseOptions
from backbones.families import Converted, identify
from backbones.ledger import Ledger
from backbones.zoo import Zoo
from mae_bench.core import find
from mae_bench.core.config import Config, nearest
from mae_bench.core.errors import ConfigError

ZOO = "backbones.zoo"
NAME_BYTES = 80
FORMS = "NAME=SRC or SRC, where SRC is random:ARCH, timm:NAME, a checkpoint file, or a folder with model.safetensors"


@dataclass(frozen=True, eq=False)
class Source:
    """A checkpoint that is read and checked; backbones with its weights are built from it."""

    name: str
    """For tables and folders."""
    text: str
    """SRC as it was given."""
    spec: BackboneSpec
    sha256: str
    """Of the checkpoint file; of the text `random:ARCH` where there is none."""
    ledger: Ledger
    arch: Config
    _zoo: Zoo = field(repr=False)
    _weights: Mapping[str, Tensor] | None = field(repr=False)
    """By the network's names; None draws them from the seed of each build."""

    def build(self, options: DenseOptions | None = None, *, seed: int = 0) -> Backbone:
        """Make a module of its own with the weights.

        Args:
            options: what a dense task asks for.
            seed: of the initialisation, for `random:ARCH`; a checkpoint ignores it.
        """
        weights = self._zoo.initial_weights(self.arch, seed) if self._weights is None else self._weights
        return self._zoo.assemble(self.arch, self.spec, weights, options)

    def ledger_for(self, options: DenseOptions) -> Ledger:
        """The ledger with what dense options change: what is resized, left out, and made anew."""
        plain = self._zoo.weights_of(self._zoo.empty(self.arch, self.spec))
        built = self._zoo.weights_of(self._zoo.empty(self.arch, self.spec, options))
        resized = {name for name in built if name in plain and built[name].shape != plain[name].shape}
        left_out = {name: "prefix token, dropped by the dense options" for name in plain if name not in built}
        changed = resized | set(left_out)
        return replace(
            self.ledger,
            matched=tuple(name for name in self.ledger.matched if name not in changed),
            converted=tuple(name for name in self.ledger.converted if name not in changed),
            resized=tuple(sorted(resized)),
            dropped={**self.ledger.dropped, **left_out},
            new=tuple(name for name in built if name not in plain),
        )


def open_source(text: str) -> Source:
    """Open what `-m` names.

    Raises:
        ConfigError: text of no known form, or an architecture or name that is none.
        InputError: a checkpoint that cannot be used as it is.
    """
    name, source = _split(text)
    kind, colon, rest = source.partition(":")
    if source in _variants():
        return _open_random(name, source, source)
    if colon and kind == "random":
        return _open_random(name, source, rest)
    if colon and kind == "timm":
        return _open_timm(name, source, rest)
    if colon and kind == "hf":
        return _open_hf(name, source, rest)
    return _open_file(name, source)


def _split(text: str) -> tuple[str | None, str]:
    """Part NAME from SRC. A path may have `=` in it: what exists as it stands is a path."""
    if not text.isprintable() or not text.strip():
        raise ConfigError(f"{text!r} is no model; give {FORMS}")
    name, equals, source = text.partition("=")
    if not equals or _exists(Path(text)):
        return None, text
    _check_name(name)
    if not source:
        raise ConfigError(f"{text!r} names no model after the '='; give {FORMS}")
    return name, source


def _exists(path: Path) -> bool:
    """Whether there is something at a path; text that cannot even be one has nothing."""
    try:
        return path.exists() or path.is_symlink()
    except OSError:
        return False


def _check_name(name: str) -> None:
    """A name becomes a folder, so it must be able to be one and stay inside its parent."""
    if not name or name != name.strip() or name.startswith((".", "-")) or re.search(r'[/\\:*?"<>|]', name):
        raise ConfigError(
            f"{name!r} cannot name a model: it becomes a folder, so no '/', no leading '.' or '-', no spaces around it"
        )
    if len(name.encode()) > NAME_BYTES:
        raise ConfigError(f"the model name {name[:20]!r}... is longer than {NAME_BYTES} bytes; give a shorter NAME=")


def _default_name(text: str) -> str:
    """A name made of a file's or model's own, with everything replaced that a folder cannot have."""
    clean = re.sub(r'[/\\:*?"<>|]', "_", text).strip().lstrip(".-") or "model"
    return clean.encode()[:NAME_BYTES].decode(errors="ignore")


def _zoo(name: str) -> Zoo:
    return cast(Zoo, find.load(ZOO, name, what="architecture family"))


def _variants() -> dict[str, Zoo]:
    """The zoo's files by the names of their architectures."""
    files = [_zoo(name) for name in find.names(ZOO)]
    return {variant: file for file in files for variant in file.VARIANTS}


def _open_random(name: str | None, source: str, variant: str) -> Source:
    zoo = _variants().get(variant)
    if zoo is None:
        raise ConfigError(f"{source}: unknown architecture {variant!r}; {nearest(variant, list(_variants()))}")
    arch = zoo.VARIANTS[variant]
    spec = zoo.spec_of(arch, method="random", pretrain_data="none")
    ledger = Ledger(notes=("weights are random",))
    sha256 = hashlib.sha256(f"random:{variant}".encode()).hexdigest()
    return Source(name or "random", source, spec, sha256, ledger, arch, zoo, None)


def _open_file(name: str | None, source: str) -> Source:
    path = Path(source)
    if not _exists(path) and not path.suffix and "/" not in source:
        raise ConfigError(f"{source!r} is no file and no architecture ({nearest(source, list(_variants()))}); give {FORMS}")
    raw = reading.read_folder(path) if path.is_dir() else reading.read(path)
    stem = raw.path.resolve().parent.name if raw.path.stem in ("model", "pytorch_model") else raw.path.stem
    return _opened(name or _default_name(stem), source, raw, identify(raw).convert(raw))


def _open_timm(name: str | None, source: str, model: str) -> Source:
    from backbones import hub

    net = hub.timm_network(model)
    raw = reading.read(hub.timm_file(model, net))
    return _opened(name or _default_name(model), source, raw, hub.with_facts(identify(raw).convert(raw), net))


def _open_hf(name: str | None, source: str, model: str) -> Source:
    from backbones import hub

    raw = reading.read_folder(hub.hf_folder(model))  # pyright: ignore[reportAttributeAccessIssue]
    return _opened(name or _default_name(model), source, raw, identify(raw).convert(raw))


def _opened(name: str, source: str, raw: reading.RawCheckpoint, converted: Converted) -> Source:
    zoo = _zoo(converted.zoo)
    weights, ledger = loading.check(raw, converted, zoo)
    return Source(name, source, converted.spec, raw.sha256, ledger, converted.arch, zoo, weights)
