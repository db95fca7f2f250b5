"""Augmentation of the pretraining (Table 1e)."""

LAYOUT = "mae-table1"
ROWS = {
    "augmentation-none_center_crop": {"augmentation": "none"},
    "augmentation-crop_fixed_size": {"augmentation": "fixed_crop"},
    "augmentation-crop_random_size": {"augmentation": "random_crop"},
    "augmentation-crop_plus_color_jitter": {"augmentation": "random_crop_colour"},
}
