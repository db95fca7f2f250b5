"""Pretraining objectives: one file an objective; a new file here is a new name for `pretrain`."""
