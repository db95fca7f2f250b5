"""Blocks of the decoder (Table 1a)."""

LAYOUT = "mae-table1"
ROWS = {f"decoder_depth-{depth}": {"decoder_depth": str(depth)} for depth in (1, 2, 4, 8, 12)}
