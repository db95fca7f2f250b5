"""MAE Table 3: fine-tuning on ImageNet-1K against other pretrainings."""

from results.layout import Published

LAYOUTS = (
    Published(
        title="MAE Table 3: ImageNet-1K, end-to-end fine-tuning, top-1",
        places=("T3",),
        rows=("method",),
        columns=("arch",),
        metrics=("top1",),
    ),
)
