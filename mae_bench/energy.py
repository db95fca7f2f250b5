"""The energy that NVIDIA GPUs have used, as their driver counts it: all of a GPU, whoever else uses it."""

import ctypes
from collections.abc import Sequence
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
"""NVML, which comes with the driver (https://docs.nvidia.com/deploy/nvml-api, group "Device Queries")."""


class Meter:
    """The counters of some GPUs."""

    def __init__(self, names: Sequence[str], library: str = LIBRARY) -> None:
        """Find GPUs by their UUIDs (`GPU-...`); one that has no counter leaves the meter without an answer.

        Args:
            names: UUIDs; none of them, and the meter has no answer.
            library: of the driver.
        """
        self._nvml: Any = None
        self._handles: list[ctypes.c_void_p] = []
        if not names:
            return
        try:
            nvml = ctypes.CDLL(library)
        except OSError:  # no driver of NVIDIA's
            return
        if nvml.nvmlInit_v2() == 0:
            self._nvml, self._handles = nvml, [_handle(nvml, name) for name in names]

    def joules(self) -> float | None:
        """Joules since the driver was loaded, of all GPUs together; None where one does not tell (it takes Volta or later)."""
        if self._nvml is None:
            return None
        total, millijoules = 0, ctypes.c_ulonglong()
        for handle in self._handles:
            if not handle or self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)) != 0:
                return None
            total += millijoules.value
        return total / 1000


def meter_of(device: str, count: int) -> Meter:
    """The meter of the first GPUs that torch sees; one without an answer on other devices.

    Args:
        device: `cpu` or `cuda`.
        count: processes of the cell, each with a GPU.
    """
    if device != "cuda":
        return Meter(())
    import torch

    return Meter([f"GPU-{torch.cuda.get_device_properties(number).uuid}" for number in range(count)])


def _handle(nvml: Any, name: str) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle)) != 0:
        return ctypes.c_void_p()
    return handle
