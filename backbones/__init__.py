"""Vision Transformer backbones behind one contract, whatever checkpoint they come from."""
