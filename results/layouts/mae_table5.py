"""MAE Table 5: ADE20K semantic segmentation with UPerNet."""

from results.layout import Published

LAYOUTS = (
    Published(
        title="MAE Table 5: ADE20K, UPerNet, mIoU",
        places=("T5",),
        rows=("method",),
        columns=("arch",),
        metrics=("mIoU",),
    ),
)
