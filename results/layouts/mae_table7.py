"""MAE Table 7: pixels against tokens as the reconstruction target, on three tasks."""

from results.layout import Published

LAYOUTS = (
    Published(
        title="MAE Table 7: reconstruction targets on ImageNet-1K, COCO and ADE20K",
        places=("T7",),
        rows=("setting",),
        columns=("dataset", "metric", "arch"),
        note="a measured model stands in the row it is named after, such as -m reconstruction_target-pixel_normalised=SRC",
    ),
)
