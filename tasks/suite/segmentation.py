"""Semantic segmentation: UPerNet trained on the backbone (arXiv 2111.06377 Table 5) or a linear head, measured by mIoU."""

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mae_bench.core import processes
from results.names import PER_CLASS
from tasks.contract import Metric
from tasks.suite._segmentation_settings import Config

if TYPE_CHECKING:
    from backbones.contract import BackboneSpec, DenseOptions
    from backbones.source import Source
    from mae_bench.core.run import Run
    from tasks.handle import DataHandle

# mmseg 0.x test ratios of its multi-scale results (configs/_base_/datasets/ade20k.py: img_ratios).
MULTI_SCALE = {"test_scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), "test_flip": True}
# DINOv2's released configs (dl.fbaipublicfiles.com/dinov2/*/dinov2_*_ade20k_{linear,ms}_config.py): AdamW 1e-3 and 1e-4, poly,
# 1500 warm-up steps, 40k steps of batch 16, images by their shorter side; arXiv 2304.07193, 7.4.
LINEAR = Config(
    head="linear",
    frozen=True,
    final_norm=True,
    relative_table=False,
    layer_scale=None,
    drop_path=0.0,
    aspect=None,
    lr=1e-3,
    weight_decay=1e-4,
    layer_decay=1.0,
    exempt="positions",  # plain AdamW there: everything decays
    steps=40_000,
)
# mmseg configs/beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py, for weights pretrained and fine-tuned on ImageNet-22K.
BEIT_640 = Config(image_size=640, lr=3e-5, layer_decay=0.9, layer_scale=0.1)

RECIPES: dict[str, Config] = {
    # The mmseg MAE config: 48.13 mIoU for MAE ViT-B there, 48.70 multi-scale, 48.15 in implus/mae_segmentation.
    "paper": Config(),
    "paper-ms": Config().override(MULTI_SCALE),
    # arXiv 2111.06377 A.4, which also measured the supervised, MoCo v3 and BEiT rows of Table 5: 100 epochs at batch 16, of
    # 20,210 images; it searched the rate for each entry and names no other value, so those are mmseg's.
    "paper-100ep": Config(steps=126_313),
    # No recipe of MAE ViT-L is released. This is BEiT-L's at 512 pixels (microsoft/unilm beit/semantic_segmentation/configs/beit/
    # upernet/upernet_beit_large_24_512_slide_160k_ade20k_pt2ft.py), whose every value but LayerScale's is here, which is MAE's.
    "paper-large": Config(lr=2e-5, layer_decay=0.95, drop_path=0.2),
    # mmseg configs/vit/vit_deit-b16_mln_upernet_8xb2-160k_ade20k-512x512.py and _base_/models/upernet_vit-b16_ln_mln.py: 45.46.
    "supervised": Config(
        relative_table=False,
        layer_scale=None,
        out_layers=(2, 5, 8, 11),
        neck="resize",
        channels=512,
        aux_input=3,
        lr=6e-5,
        weight_decay=0.01,
        exempt="positions",
        layer_decay=1.0,
        test_mode="whole",
    ),
    # BEiT-B from its pretrained weights, without fine-tuning: microsoft/unilm beit/semantic_segmentation/configs/beit/upernet/
    # upernet_beit_base_12_512_slide_160k_ade20k_pt.py. The 47.1 of MAE's Table 5 is this code run again.
    "beit": Config(lr=7e-4, layer_scale=0.1),
    "beit-640": BEIT_640,  # 53.08
    "beit-640-ms": BEIT_640.override(MULTI_SCALE),  # 53.84
    # mmseg configs/beit/beit-large_upernet_8xb1-amp-160k_ade20k-640x640.py: 56.33. It accumulates two batches of 8 a step, and
    # its schedule counts batches: the rate is zero from the 160,000th on, which is step 80,000, and the warm-up has 3000.
    "beit-large-640": BEIT_640.override(
        {"lr": 2e-5, "layer_decay": 0.95, "drop_path": 0.2, "layer_scale": 1e-6, "steps": 80_000, "warmup_steps": 1500}
    ),
    "linear": LINEAR,
    # The last four blocks, crops of 640 with half a window between windows, five scales.
    "linear-ms": LINEAR.override(
        {
            "image_size": 640,
            "resize_ratio": (1.0, 3.0),
            "out_layers": (-4, -3, -2, -1),
            "test_stride": 320,
            "test_scales": (1.0, 1.32, 1.73, 2.28, 3.0),
            "test_flip": True,
        }
    ),
    # UPerNet on fixed features. No published recipe: `paper` with the backbone frozen and the rate of `linear`.
    "frozen": Config(frozen=True, relative_table=False, layer_scale=None, drop_path=0.0, layer_decay=1.0, lr=1e-3),
    # A tenth of `paper`, to tell checkpoints apart early; not comparable with it. Own choice: no tables or LayerScale, which so
    # short a training does not move far, and smaller heads.
    "fast": Config(relative_table=False, layer_scale=None, channels=256, warmup_steps=500, steps=16_000),
    # A cell of about a minute on one CPU core, for small scenes with a small backbone; not comparable with `paper`.
    "demo": Config(
        relative_table=False,
        layer_scale=None,
        image_size=48,  # the side that vit_demo_patch8 was pretrained with
        short_side=96,
        resize_ratio=(0.8, 1.25),
        flip=0.0,  # digits and letters are not mirror-symmetric
        photometric=False,
        channels=64,
        aux_channels=32,
        class_balance=0.7,  # without it so short a training predicts background everywhere
        drop_path=0.0,
        lr=2e-3,
        layer_decay=0.9,
        warmup_steps=10,
        batch_size=8,
        steps=1000,
    ),
}

ABOUT = {
    "paper": "MAE ViT-B: UPerNet, 160k steps at 512 pixels, sliding windows (mmseg mae-base_upernet_8xb2-amp-160k)",
    "paper-ms": "the same, predictions averaged over six scales and mirror images (mmseg 0.x img_ratios)",
    "paper-100ep": "the same for 100 epochs, the length of the MAE paper (arXiv 2111.06377, A.4)",
    "paper-large": "MAE ViT-L: paper with the rate, layer decay and drop path of BEiT-L (none is released)",
    "supervised": "supervised ViT-B or DeiT-B: UPerNet, 160k steps, whole images (mmseg vit_deit-b16_mln_upernet_8xb2-160k)",
    "beit": "BEiT-B, pretrained only: UPerNet, 160k steps at 512 pixels (unilm upernet_beit_base_12_512_slide_160k_ade20k_pt)",
    "beit-640": "BEiT-B, fine-tuned on ImageNet-22K: the same at 640 pixels (mmseg beit-base_upernet_8xb2-160k)",
    "beit-640-ms": "the same, predictions averaged over six scales and mirror images",
    "beit-large-640": "BEiT-L: the same at 640 pixels (mmseg beit-large_upernet_8xb1-amp-160k)",
    "linear": "frozen backbone, one linear layer, 40k steps (dinov2 ade20k_linear_config.py)",
    "linear-ms": "the same on the last four blocks, 640 pixels, five scales (dinov2 ade20k_ms_config.py)",
    "frozen": "UPerNet on a frozen backbone: what its features hold as they are (own choice)",
    "fast": "a tenth of the steps of paper with smaller heads: tells checkpoints apart early (own choice)",
    "demo": f"{RECIPES['demo'].steps} steps at 48 pixels: minutes on a CPU, for the embedded scenes (own choice)",
}
"""What tells the recipes apart, and where each comes from."""

BY_PILLOW = "images are decoded by Pillow and not turned by their orientation tag; mmseg decodes by OpenCV"
WHOLE_PATCHES = "crops are whole patches; DINOv2 crops {} pixels and pads each crop to whole patches"
DEVIATIONS: tuple[str, ...] = (BY_PILLOW,)
"""Where the recipes of the paper differ from what they are named after; every record of them says so."""
DEVIATIONS_OF: dict[str, tuple[str, ...]] = {
    "paper-large": ("no recipe of MAE ViT-L is released: this is BEiT-L's rate, layer decay and drop path",),
    "paper-100ep": ("the paper searched the rate for each entry; here it is mmseg's",),
    **dict.fromkeys(("supervised", "beit", "beit-640", "beit-640-ms", "beit-large-640"), (BY_PILLOW,)),
    "linear": (WHOLE_PATCHES.format(512), BY_PILLOW),
    "linear-ms": (WHOLE_PATCHES.format(640), BY_PILLOW),
    "frozen": ("no published recipe",),
    "fast": ("no published recipe: a tenth of the steps of paper",),
}
"""The same of single recipes."""
OWN = ("frozen", "fast", "demo")
"""Recipes that are of no publication."""
HALF = ("beit", "beit-large-640")
"""Recipes whose published configs train in fp16; mmengine does not read the `fp16` of the others' files. For `paper` that is
mmseg's own run: implus/mae_segmentation (48.15) trained in fp16 (configs/mae/upernet_mae_base_12_512_slide_160k_ade20k.py)."""

MADE_FOR = {"paper": (768, 12), "paper-ms": (768, 12), "paper-100ep": (768, 12), "paper-large": (1024, 24)}
"""Width and depth of the network that a recipe was made for."""

METRICS = (Metric("mIoU"), Metric("mAcc"), Metric("aAcc"))
KIND = "segmentation"
REQUIRES = ("mmseg", "mmengine", "mmcv")
SELECTION = "last step"


def dense_options(config: Config, spec: "BackboneSpec") -> "DenseOptions":
    """What the settings ask of a backbone of this patch size; see `tasks.contract.Task`."""
    from backbones import upernet

    side = upernet.crop_side(config.image_size, spec)
    table, scale = config.relative_table, config.layer_scale
    return upernet.dense_options((side, side), config.drop_path, relative_table=table, layer_scale=scale)


def deviations(recipe: str, config: Config, source: "Source", run: "Run") -> tuple[str, ...]:
    """What of this very cell differs from the recipe's own words, beside `DEVIATIONS`."""
    spec, found = source.spec, []
    wanted = MADE_FOR.get(recipe)
    if wanted is not None and wanted != (spec.embed_dim, spec.depth):
        made_for = f"a width of {wanted[0]} and {wanted[1]} blocks"
        found.append(f"{recipe} was made for {made_for}; {spec.name} has {spec.embed_dim} and {spec.depth}")
    if recipe not in OWN and (run.precision == "fp32") == (recipe in HALF):
        found.append(
            f"trained in {run.precision}; the published run was {'in fp16' if recipe in HALF else 'most likely in fp32'}"
        )
    if config.weights is not None:
        from tasks.common.weights import begun_with

        found.append(f"the segmentor began as {config.weights}, sha256 {begun_with(config.weights)}")
    count = processes.world()
    if count > 1 and run.device == "cpu":
        found.append(f"batch norms of {count} processes are not synchronised on a CPU")
    return tuple(found)


def evaluate(source: "Source", data: "DataHandle", config: Config, run: "Run") -> dict[str, float]:
    """Train on the training split and give mIoU, mAcc and aAcc in percent on the validation split.

    Leaves `per_class.json` and `predictions.png` in `run.out`.

    Raises:
        EnvironmentFault: mmsegmentation is not installed, or broken.
        ConfigError: settings that do not fit the backbone.
        InputError: the labels do not fit the classes, or there are fewer than two classes.
    """
    return _edge("segmentation_run").evaluate(source, data, config, run)


def by_class(out: Path) -> list[tuple[str, dict[str, float | None]]]:
    """Name, IoU and accuracy of each class, from the folder of a cell; None where it neither occurs nor is predicted."""
    rows = json.loads((out / PER_CLASS).read_text(encoding="utf-8"))["classes"]
    return [(row["class"], {name: row[name] for name in ("IoU", "Acc")}) for row in rows]


def export_native(source: "Source", config: Config, path: Path, *, handle: "DataHandle | None" = None) -> None:
    """Write a cell as a config of mmsegmentation's own, which its tools train with the suite's backbone in it.

    Args:
        source: the backbone.
        config: settings of the task.
        path: the file to write, ending in `.py`.
        handle: the data set; ADE20K at mmseg's usual place when not given.

    Raises:
        EnvironmentFault: mmsegmentation is not installed, or broken.
        ConfigError: settings or data that mmengine has no words for.
    """
    _edge("segmentation_export").export_native(source, config, path, data=handle)


def _edge(name: str) -> Any:
    """A file of `tasks.edges`, or one line that says what is missing for it."""
    from mae_bench.core.errors import EnvironmentFault
    from mae_bench.core.find import missing

    try:
        return import_module(f"tasks.edges.{name}")
    except ModuleNotFoundError as error:
        raise missing(error, "task segmentation") from error
    except (ImportError, AssertionError) as error:  # OpenCV without the system's libGL, say; mmseg asserts mmcv's version
        raise EnvironmentFault(f"task segmentation: {error}; install what is named there, or reinstall mmsegmentation") from error
