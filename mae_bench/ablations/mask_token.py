"""Whether the encoder sees mask tokens (Table 1c)."""

LAYOUT = "mae-table1"
ROWS = {
    "mask_token_in_encoder-yes": {"encoder_mask_tokens": "true"},
    "mask_token_in_encoder-no": {"encoder_mask_tokens": "false"},
}
