"""The network of a recipe as a config of mmsegmentation."""

from typing import TYPE_CHECKING, Any

from backbones.adapters.to_mmseg import MaeBenchBackbone, default_layers, rescales
from backbones.contract import Backbone, BackboneSpec
from backbones.upernet import crop_side
from mae_bench.core.errors import ConfigError
from tasks.data._label_maps import IGNORED

if TYPE_CHECKING:
    from tasks.suite.segmentation import Config

Part = dict[str, Any]
"""Config of one module of mmseg."""


def out_layers(config: "Config", spec: BackboneSpec) -> tuple[int, ...]:
    """Blocks whose outputs the head sees."""
    return config.out_layers or (default_layers(spec.depth) if config.head == "upernet" else (-1,))


def segmentor_config(
    backbone: Backbone | Part,
    spec: BackboneSpec,
    config: "Config",
    num_classes: int,
    *,
    class_weight: list[float] | None = None,
    distributed: bool = False,
) -> Part:
    """The `EncoderDecoder` config that mmseg builds the network from (mmseg `configs/_base_/models/upernet_mae.py`).

    Args:
        backbone: the backbone with its weights, or the settings by which `MaeBenchBackbone` reads it.
        spec: what the backbone is.
        config: settings of the task.
        num_classes: number of classes, without the ignored label.
        class_weight: weights of the classes in the loss; None is one for each.
        distributed: whether several processes train together, each on an accelerator of its own. Then batch norms are SyncBN;
            one process alone computes the same with plain batch norms, which also run on a CPU.

    Raises:
        ConfigError: settings that do not fit the backbone.
    """
    coarsest, side = _coarsest_stride(config, spec), crop_side(config.image_size, spec)
    if side < coarsest:
        raise ConfigError(f"segmentation.image_size={side} is less than a cell of the coarsest map; set at least {coarsest}")
    head: Part = {
        "num_classes": num_classes,
        "out_channels": num_classes,
        "norm_cfg": {"type": "SyncBN" if distributed else "BN", "requires_grad": True},
        "align_corners": False,
    }
    heads = _linear(spec, config, head, class_weight) if config.head == "linear" else _upernet(spec, config, head, class_weight)
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": _preprocessor(config, spec),
        "backbone": _backbone(backbone, spec, config),
        **heads,
        "train_cfg": {},
        "test_cfg": _test_config(config, spec),
    }


def _backbone(backbone: Backbone | Part, spec: BackboneSpec, config: "Config") -> Part:
    given = {"backbone": backbone} if isinstance(backbone, Backbone) else backbone
    taken = {"out_layers": out_layers(config, spec), "final_norm": config.final_norm, "frozen": config.frozen}
    return {"type": MaeBenchBackbone.__name__, **given, **taken}


def _linear(spec: BackboneSpec, config: "Config", head: Part, class_weight: list[float] | None) -> Part:
    widths = [spec.embed_dim] * len(out_layers(config, spec))
    loss = _cross_entropy(1.0, class_weight)
    return {"decode_head": {**head, "type": "MaeBenchLinearHead", "in_channels": widths, "loss_decode": loss}}


def _upernet(spec: BackboneSpec, config: "Config", head: Part, class_weight: list[float] | None) -> Part:
    width = spec.embed_dim
    upernet = {
        "type": "UPerHead",
        "in_channels": [width] * 4,
        "in_index": [0, 1, 2, 3],
        "pool_scales": config.pool_scales,
        "channels": config.channels or width,
        "loss_decode": _cross_entropy(1.0, class_weight),
    }
    auxiliary = {
        "type": "FCNHead",
        "in_channels": width,
        "in_index": config.aux_input,
        "channels": config.aux_channels,
        "num_convs": 1,
        "concat_input": False,
        "loss_decode": _cross_entropy(config.aux_weight, class_weight),
    }
    head = {**head, "dropout_ratio": config.dropout}
    parts: Part = {"neck": _neck(spec, config, head["norm_cfg"]), "decode_head": head | upernet}
    return parts | ({"auxiliary_head": head | auxiliary} if config.aux_weight else {})


def _neck(spec: BackboneSpec, config: "Config", norm: Part) -> Part | None:
    width, factors = spec.embed_dim, list(rescales(spec.patch_size))
    if config.neck == "deconvolution":
        return {"type": "Feature2Pyramid", "embed_dim": width, "rescales": factors, "norm_cfg": norm}
    if config.neck == "resize":
        return {"type": "MultiLevelNeck", "in_channels": [width] * 4, "out_channels": width, "scales": factors}
    return None


def _preprocessor(config: "Config", spec: BackboneSpec) -> Part:
    """Normalisation and padding: images come as BGR bytes; padding is zero after normalisation, and labels there are ignored."""
    side = crop_side(config.image_size, spec)
    whole = {"size_divisor": _coarsest_stride(config, spec)}
    return {
        "type": "mmseg.SegDataPreProcessor",
        "mean": [255 * value for value in spec.mean],
        "std": [255 * value for value in spec.std],
        "bgr_to_rgb": True,
        "pad_val": 0,
        "seg_pad_val": IGNORED,
        "size": (side, side),
        # Fills windows of images smaller than one; mmseg takes the padding away from the prediction again.
        "test_cfg": {"size": (side, side)} if config.test_mode == "slide" else whole,
    }


def _coarsest_stride(config: "Config", spec: BackboneSpec) -> int:
    """Pixels of one cell of the coarsest map."""
    patch = spec.patch_size
    return round(patch / min(rescales(patch))) if config.head == "upernet" and config.neck != "none" else patch


def _test_config(config: "Config", spec: BackboneSpec) -> Part:
    if config.test_mode == "whole":
        return {"mode": "whole"}
    side = crop_side(config.image_size, spec)
    stride = config.test_stride or side * 2 // 3
    if stride > side:
        raise ConfigError(f"segmentation.test_stride={stride} leaves gaps between windows of {side} pixels; set at most {side}")
    return {"mode": "slide", "crop_size": (side, side), "stride": (stride, stride)}


def _cross_entropy(weight: float, class_weight: list[float] | None) -> Part:
    loss: Part = {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": weight}
    return loss | ({"type": "MaeBenchBalancedLoss", "class_weight": class_weight} if class_weight else {})
