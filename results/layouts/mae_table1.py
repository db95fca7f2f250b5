"""MAE Table 1: ablations of the pretraining, ViT-L, 800 epochs; six parts."""

from results.layout import Published

PARTS = {
    "a": "decoder depth",
    "b": "decoder width",
    "c": "mask token in the encoder",
    "d": "reconstruction target",
    "e": "data augmentation",
    "f": "mask sampling",
}

LAYOUTS = tuple(
    Published(
        title=f"MAE Table 1({part}): {what}, ViT-L/16, ImageNet-1K top-1",
        places=(f"T1{part}",),
        rows=("setting",),
        columns=("protocol",),
        metrics=("top1",),
        note="a measured model stands in the row it is named after, such as -m decoder_depth-4=SRC",
    )
    for part, what in PARTS.items()
)
