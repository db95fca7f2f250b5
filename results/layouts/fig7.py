"""MAE Figure 7: the length of the pretraining."""

from results.layout import Published

LAYOUTS = (
    Published(
        title="MAE Figure 7: epochs of pretraining, ViT-L/16, ImageNet-1K top-1",
        places=("Fig7",),
        rows=("epochs",),
        columns=("protocol",),
        metrics=("top1",),
        note="a measured model stands in the row it is named after, such as -m 800=SRC",
    ),
)
