"""Width of the decoder (Table 1b)."""

LAYOUT = "mae-table1"
ROWS = {f"decoder_width-{width}": {"decoder_dim": str(width)} for width in (128, 256, 512, 768, 1024)}
