"""A checkpoint that notes how a task builds and uses it: for the record, without a task's having to say so."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbones.contract import Backbone, DenseOptions
    from backbones.ledger import Ledger
    from backbones.source import Source


class Watched:
    """Stands in for a `Source`; what it is asked for goes through to it."""

    def __init__(self, source: "Source") -> None:
        self._source = source
        self.options: DenseOptions | None = None
        self.images = 0
        """That went through the backbones built from it."""
        self.input_size: tuple[int, int] | None = None
        """Height and width of the first of them, in pixels."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def build(self, options: "DenseOptions | None" = None, *, seed: int = 0) -> "Backbone":
        """Build, and count what goes through; see `backbones.source.Source.build`."""
        self.options = options
        backbone = self._source.build(options, seed=seed)
        backbone.register_forward_pre_hook(self._count, with_kwargs=True)
        return backbone

    def ledger_built(self) -> "Ledger":
        """What became of every tensor in the last backbone built."""
        return self._source.ledger if self.options is None else self._source.ledger_for(self.options)

    def gflops(self) -> float | None:
        """Billions of floating-point operations of one forward pass for one image of the size seen.

        Counted by torch on a backbone without memory, so that it takes no time; None where no image was seen.
        """
        if self.input_size is None:
            return None
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        from backbones.contract import DenseOptions

        source = self._source
        empty = source._zoo.empty(source.arch, source.spec, self.options or DenseOptions()).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            empty(torch.empty(1, 3, *self.input_size, device="meta"))
        return float(f"{counter.get_total_flops() / 1e9:.5g}")

    def _count(self, module: Any, words: tuple[Any, ...], more: dict[str, Any]) -> None:
        images = words[0] if words else more["images"]
        self.images += images.shape[0]
        if self.input_size is None:
            self.input_size = int(images.shape[-2]), int(images.shape[-1])
