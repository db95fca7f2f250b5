"""MAE Figure 9: partial fine-tuning, by the number of blocks that are trained."""

from results.layout import Published
from results.record import Record


def blocks(record: Record) -> str:
    """The published setting of a record: 0 blocks for the linear probe, all for fine-tuning."""
    if record.protocol.task == "linear":
        return "tuned_blocks=0"
    if record.protocol.task == "finetune":
        return "tuned_blocks=24"
    count = record.protocol.config.get("blocks")
    if count == 0.5:
        return "tuned_blocks=0.5 (MLP of last block)"
    return f"tuned_blocks={count:g}" if isinstance(count, int | float) else "tuned_blocks=?"


LAYOUTS = (
    Published(
        title="MAE Figure 9: partial fine-tuning, ViT-L/16, ImageNet-1K top-1",
        places=("Fig9",),
        rows=("setting",),
        columns=("method",),
        metrics=("top1",),
        setting_of=blocks,
    ),
)
