"""MAE Table 13: robustness of the fine-tuned models on variants of ImageNet."""

from results.layout import Published

LAYOUTS = (
    Published(
        title="MAE Table 13: robustness, mCE of ImageNet-C (lower is better), top-1 of the others",
        places=("T13",),
        rows=("method", "arch"),
        columns=("dataset", "metric"),
        metrics=("top1", "mCE"),
        file="mae_table13_robustness",
    ),
)
