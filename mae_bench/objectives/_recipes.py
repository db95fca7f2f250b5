"""Values that the recipes of several objectives share; each objective's own file says where its others come from."""

from typing import Any

CONTRASTIVE: dict[str, Any] = {
    "epochs": 300,
    "batch_size": 4096,
    "base_lr": 1.5e-4,
    "warmup_epochs": 40,
    "weight_decay": 0.1,
}
"""The training of MoCo v3 for ViT-B (arXiv 2104.02057, section 5), at the 300 epochs of its table 4."""

SMALL_VIEWS: dict[str, Any] = {
    "batch_size": 64,
    "warmup_epochs": 1,
    "betas": (0.9, 0.95),
    "weight_decay": 0.05,
    "crop_scale": (0.5, 1.0),
    "flip": 0.0,  # digits are not mirror-symmetric
    "pool": "mean",
}
"""For vit_demo_patch8 on the embedded images, with several views of each; six epochs take about three minutes of one CPU core."""

SMALL_PAIRS: dict[str, Any] = {
    **SMALL_VIEWS,
    "epochs": 12,
    "jitter": 0.5,
    "blur": (0.0, 0.0),
    "solarize": (0.0, 0.0),
}
"""The same for two views and a momentum teacher."""
