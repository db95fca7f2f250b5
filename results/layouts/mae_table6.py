"""MAE Table 6: transfer by fine-tuning to other classification data sets."""

from results.layout import Published

LAYOUTS = (
    Published(
        title="MAE Table 6: fine-tuning on other classification data, top-1",
        places=("T6",),
        rows=("dataset",),
        columns=("method", "arch"),
        metrics=("top1",),
    ),
)
