"""Features of a data set, computed once for each checkpoint, view and pooling, and shared by every probe of an output folder."""

import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from backbones.contract import Backbone, Pool
from mae_bench.core import processes
from mae_bench.core.errors import InputError
from mae_bench.core.files import write_bytes, write_json
from mae_bench.core.run import Run
from mae_bench.core.samples import Failure, Skipped
from mae_bench.core.seeding import generator
from results.names import FEATURES
from tasks.common.features import View, extract
from tasks.common.images import split_of
from tasks.common.sizes import check_pool, input_size
from tasks.common.train import check_whole

if TYPE_CHECKING:
    from backbones.source import Source
    from tasks.common.settings import Pooled
    from tasks.handle import DataHandle

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when features of equal keys would come out different."""
SPLITS: tuple[Literal["train"], Literal["val"]] = ("train", "val")


class Bank(NamedTuple):
    """Features (N, C) in fp32 and classes (N,) of a split, both on the CPU."""

    features: Tensor
    classes: Tensor


@dataclass(frozen=True)
class _Wanted:
    """Everything that features depend on."""

    backbone: Backbone
    data: "DataHandle"
    pool: Pool
    view: View
    weights: str
    """Digest of the network's weights."""

    def key(self, which: str, run: Run) -> str:
        spec = self.backbone.spec
        facts = (
            VERSION,
            self.weights,
            repr(spec),
            self.data.fingerprint,
            which,
            self.pool,
            self.view.size,
            self.view.crop_ratio,
            run.precision,
            run.device,
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:24]


def banks(source: "Source", data: "DataHandle", config: "Pooled", run: Run) -> tuple[Bank, Bank]:
    """Give the features of `train` and `val`, from `run.cache` where they lie there already.

    Damaged images of `train` are left out, named in `skipped.jsonl` and limited by `run.max_skipped`.

    Raises:
        ConfigError: the class token of a network without one, or an input size that is not whole patches.
        InputError: an image of `val` is damaged, or too many of `train`.
    """
    check_whole("features", run)
    check_pool(source.spec, config.pool)
    backbone = source.build(seed=run.seed)
    view = View(input_size(backbone.spec, config.image_size), config.crop_ratio, backbone.spec.interpolation)
    wanted = _Wanted(backbone, data, config.pool, view, _digest(backbone) if run.cache else "")
    train, val = (_bank(wanted, which, run) for which in SPLITS)
    return train, val


def _bank(wanted: _Wanted, which: Literal["train", "val"], run: Run) -> Bank:
    split = split_of(wanted.data, which)
    skipped = Noted(run, len(split)) if which == "train" else None

    def compute() -> Bank:
        found = extract(wanted.backbone, split, wanted.pool, wanted.view, run, title=f"features of {which}", skipped=skipped)
        return Bank(*found)

    if run.cache is None:
        return compute()
    path = run.cache / f"{wanted.key(which, run)}.safetensors"
    started = time.monotonic()
    with _locked(path.with_suffix(".lock"), run):
        waited = time.monotonic() - started
        found = _read(path, skipped)
        if found is not None:
            _note(run, path, {"seconds": found.seconds, "waited": waited, "found": True})
            return found.bank
        bank = compute()
        spent = time.monotonic() - started - waited
        _write(path, _Stored(bank, spent), skipped)
        _note(run, path, {"seconds": spent, "waited": waited, "found": False})
        return bank


class _Stored(NamedTuple):
    """What is kept in a file."""

    bank: Bank
    seconds: float | None
    """What it took to compute; None where an earlier version has not said."""


def _note(run: Run, path: Path, what: dict[str, float | bool | None]) -> None:
    """Say in the cell's folder what features cost and who paid, so that every cell that uses them can be charged the same.

    What a cell has computed in an earlier session, it has paid for already.
    """
    if not processes.is_main():
        return
    there = _told(run.out / FEATURES)
    if not (what["found"] and path.stem in there):
        write_json(run.out / FEATURES, {**there, path.stem: what})


def _told(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


class Noted(Skipped):
    """Images left out of the features, which are told again when the features come from a file."""

    def __init__(self, run: Run, images: int) -> None:
        super().__init__(run.out, images, run.max_skipped, by="features")
        self.failures: list[Failure] = []
        self.forget()

    def add(self, failure: Failure) -> None:
        """Name an image; see `Skipped.add`."""
        super().add(failure)
        self.failures.append(failure)


def _read(path: Path, skipped: Noted | None) -> _Stored | None:
    """The features in a file; None where there is none, or none that can be read."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            found = Bank(file.get_tensor("features"), file.get_tensor("classes"))
            told = file.metadata() or {}
            failures, seconds = json.loads(told.get("skipped", "[]")), json.loads(told.get("seconds", "null"))
    except (SafetensorError, OSError, ValueError) as error:
        log.warning("features in %s cannot be read (%s); computing them again", path, error)
        return None
    for number, reason in failures:
        if skipped is not None:
            skipped.add(Failure(number, InputError(reason)))
    log.info("features from %s", path)
    return _Stored(found, seconds)


def _write(path: Path, stored: _Stored, skipped: Noted | None) -> None:
    failures = [] if skipped is None else [(failure.number, str(failure.error)) for failure in skipped.failures]
    facts = {"skipped": json.dumps(failures), "seconds": json.dumps(stored.seconds)}
    write_bytes(path, save(stored.bank._asdict(), facts))


@contextmanager
def _locked(path: Path, run: Run) -> Iterator[None]:
    """Let one process at a time compute a file; the system lets go when a process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            run.reporter.start("waiting for features that another cell computes", 1)
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as error:  # no locks on this file system: two cells may compute the same file, which is written whole
            log.warning("no lock for %s (%s)", path, error.strerror)
        yield


def _digest(backbone: Backbone) -> str:
    """SHA-256 of the weights as they are, whatever file or seed they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def held_out(classes: Tensor, share: float, seed: int) -> Tensor:
    """Part training images into those that are fitted and those that a choice is made on.

    Of each class the same share is held out, at least one image and never all; a class of one image is fitted.

    Args:
        classes: (N,) of the training split.
        share: 0 to 1 that is held out.
        seed: of the draw.

    Returns:
        Whether each image is held out, (N,).
    """
    chosen = torch.zeros(len(classes), dtype=torch.bool)
    random = generator(seed, "held out")
    for label in classes.unique().tolist():
        members = (classes == label).nonzero().flatten()
        count = min(len(members) - 1, max(1, round(share * len(members))))
        chosen[members[torch.randperm(len(members), generator=random)[:count]]] = True
    return chosen
