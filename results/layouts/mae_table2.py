"""MAE Table 2: time of the pretraining, and what the fine-tuned model reaches."""

from results.layout import Published

LAYOUTS = (
    Published(
        title="MAE Table 2: 800-epoch pretraining, hours on 128 TPU-v3 cores, and top-1 of the fine-tuned model",
        places=("T2",),
        rows=("arch", "setting"),
        columns=("metric",),
        metrics=("top1", "hours", "speedup"),
    ),
)
