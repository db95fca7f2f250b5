"""One file an ablation of arXiv 2111.06377; see `mae_bench.ablate.Ablation`."""
