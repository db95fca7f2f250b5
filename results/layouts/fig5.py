"""MAE Figure 5: the mask ratio."""

from results.layout import Published

LAYOUTS = (
    Published(
        title="MAE Figure 5: mask ratio, ViT-L/16, ImageNet-1K top-1",
        places=("Fig5",),
        rows=("setting",),
        columns=("protocol",),
        metrics=("top1",),
        note="a measured model stands in the row it is named after, such as -m mask_ratio-75=SRC",
    ),
)
