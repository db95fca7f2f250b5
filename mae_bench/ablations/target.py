"""What is predicted of a patch (Table 1d); discrete tokens need a tokenizer that is not part of this."""

LAYOUT = "mae-table1"
ROWS = {
    "reconstruction_target-pixel_unnormalised": {"target": "pixels", "norm_pix_loss": "false"},
    "reconstruction_target-pixel_normalised": {"target": "pixels", "norm_pix_loss": "true"},
    "reconstruction_target-PCA_96coef": {"target": "pca", "norm_pix_loss": "false", "pca_dims": "96"},
}
