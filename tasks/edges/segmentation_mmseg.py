"""The door to mmsegmentation: everything of it that the segmentation task uses, imported without its noise."""

import io
import logging
import warnings
from contextlib import redirect_stdout
from typing import Any

with redirect_stdout(io.StringIO()), warnings.catch_warnings():  # prints "Could not import OneDL" on standard output
    # mmcv without compiled operators lacks this one, which no part of UPerNet uses.
    warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``", category=UserWarning)
    import mmseg.datasets.transforms
    import mmseg.models
    import mmseg.models.segmentors.encoder_decoder  # noqa: F401  # registers what is named in configs

import cv2
from mmcv.transforms import BaseTransform
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmseg.evaluation.metrics import IoUMetric
from mmseg.registry import MODELS, TRANSFORMS
from mmseg.structures import SegDataSample

import tasks.edges.segmentation_linear  # registers the suite's own head
import tasks.edges.segmentation_loss  # noqa: F401  # registers the suite's own loss

__all__ = ["TRANSFORMS", "BaseTransform", "Config", "IoUMetric", "SegDataSample", "build_model"]

# Its logger would print tables into the progress display.
MMLogger.get_current_instance().setLevel(logging.WARNING)
# OpenCV's own threads neither survive the fork of data workers nor keep to the threads a run is given.
cv2.setNumThreads(0)


def build_model(config: dict[str, Any]) -> Any:
    """Build a network of mmseg's registry from its config."""
    with warnings.catch_warnings():
        # The loss is averaged over ignored pixels too, as in mmseg's recipes; mmseg warns of this default of its own.
        warnings.filterwarnings("ignore", message="Default ``avg_non_ignore`` is False", category=UserWarning)
        # The heads of mmsegmentation 1.2.2 call a function of its own that is deprecated.
        warnings.filterwarnings("ignore", message="``build_loss`` would be deprecated", category=UserWarning)
        return MODELS.build({**config, "test_cfg": ConfigDict(config["test_cfg"])})
