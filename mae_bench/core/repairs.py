"""Which command installs a package that some part of the suite needs."""

import re

# The extra (`pip install "mae-bench[NAME]"`) that brings a module; modules of the light core are not here.
EXTRA_OF = {
    "fvcore": "detection",
    "iopath": "detection",
    "omegaconf": "detection",
    "hydra": "detection",
    "yacs": "detection",
    "cloudpickle": "detection",
    "pycocotools": "detection",
    "shapely": "detection",
    "tabulate": "detection",
    "termcolor": "detection",
    "detectron2": "detection",
    "faster_coco_eval": "fast",
    "simplejpeg": "fast",
    "datasets": "hf",
    "mmengine": "segmentation",
    "mmcv": "segmentation",
    "mmseg": "segmentation",
    "cv2": "segmentation",
    "ftfy": "segmentation",
    "regex": "segmentation",
    "lightly": "contrastive",
    "pytorch_lightning": "contrastive",
    "lightning": "contrastive",
    "jinja2": "report",
    "plotly": "report",
    "submitit": "slurm",
    "tensorboard": "tensorboard",
    "pytest": "dev",
    "hypothesis": "dev",
    "transformers": "dev",
    "webdataset": "dev",
}

# Modules that no extra installs.
COMMANDS = {"detectron2": "mae-bench setup detection"}

# Import names that differ from the name pip installs.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}


def repair_line(module: str) -> str:
    """The command that installs a module, by its import name."""
    if module in COMMANDS:
        return COMMANDS[module]
    if module in EXTRA_OF:
        return f'pip install "mae-bench[{EXTRA_OF[module]}]"'
    return f"pip install {DISTRIBUTIONS.get(module, re.sub('_', '-', module))}"
