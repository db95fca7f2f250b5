"""Checkpoint families: one file recognises one family by its keys."""
