"""Number formats outside of the training engine, which has its own."""

import torch

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: str, precision: str) -> torch.autocast:
    """The number format that `Run.precision` names, for a forward pass."""
    return torch.autocast(device, dtype=TYPES[precision], enabled=precision != "fp32")
