"""How removed patches are chosen (Table 1f)."""

LAYOUT = "mae-table1"
ROWS = {
    "mask_sampling-random_75": {"mask": "random", "mask_ratio": "0.75"},
    "mask_sampling-block_50": {"mask": "block", "mask_ratio": "0.5"},
    "mask_sampling-block_75": {"mask": "block", "mask_ratio": "0.75"},
    "mask_sampling-grid_75": {"mask": "grid", "mask_ratio": "0.75"},
}
