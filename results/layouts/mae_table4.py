"""MAE Table 4: COCO detection and instance segmentation with Mask R-CNN."""

from results.layout import Published

LAYOUTS = (
    Published(
        title="MAE Table 4: COCO, Mask R-CNN, average precision",
        places=("T4",),
        rows=("method",),
        columns=("metric", "arch"),
        metrics=("AP_box", "AP_mask"),
        note="the recipe behind this table was searched and not released; detection:paper is ViTDet's",
    ),
)
