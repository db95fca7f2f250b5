"""What dense options change of the tensors of a network, for its ledger."""

from dataclasses import replace

from backbones.contract import BackboneSpec, DenseOptions
from backbones.ledger import Ledger
from backbones.relative import TABLE
from backbones.zoo import Zoo
from mae_bench.core.config import Config


def with_options(ledger: Ledger, zoo: Zoo, arch: Config, spec: BackboneSpec, options: DenseOptions) -> Ledger:
    """A ledger with what is resized, left out, and made anew.

    Args:
        ledger: of the network as its file has it.
        zoo: what makes the network.
        arch: the network.
        spec: what consumers are told of it.
        options: what a dense task asks for.
    """
    plain = zoo.weights_of(zoo.empty(arch, spec))
    built = zoo.weights_of(zoo.empty(arch, spec, options))
    resized = {name for name in built if name in plain and built[name].shape != plain[name].shape}
    left_out = {name: _why_left_out(name) for name in plain if name not in built}
    shared = any(name.endswith(TABLE) for name in left_out)
    copies = {name for name in built if name not in plain and shared and name.endswith(TABLE)}
    changed = resized | set(left_out)
    return replace(
        ledger,
        matched=tuple(name for name in ledger.matched if name not in changed),
        converted=(*(name for name in ledger.converted if name not in changed), *sorted(copies)),
        resized=tuple(sorted(resized)),
        dropped={**ledger.dropped, **left_out},
        new=tuple(name for name in built if name not in plain and name not in copies),
        notes=(*ledger.notes, *_resampled(spec.patch_size, options)),
    )


def _why_left_out(name: str) -> str:
    """Why a tensor of the network is not in what dense options make of it."""
    return "shared table, copied to each block" if name.endswith(TABLE) else "prefix token, dropped by the dense options"


def _resampled(patch_size: int, options: DenseOptions) -> list[str]:
    """What is said of a patch projection at another size."""
    if options.patch_size in (None, patch_size):
        return []
    return [f"patch projection resampled from {patch_size} to {options.patch_size} pixels, bicubic (arXiv 2203.16527)"]
