"""Share of removed patches (Figure 5)."""

LAYOUT = "fig5"
ROWS = {f"mask_ratio-{percent}": {"mask_ratio": str(percent / 100)} for percent in range(10, 100, 10)} | {
    "mask_ratio-75": {"mask_ratio": "0.75"}
}
