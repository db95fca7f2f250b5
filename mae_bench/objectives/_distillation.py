"""DINO's student and teacher; head and loss are lightly's."""

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from backbones.contract import Backbone, BackboneSpec
from backbones.vit import TimmViT
from mae_bench.core.errors import ConfigError
from mae_bench.core.find import missing
from mae_bench.objectives._parts import start, to_input
from mae_bench.objectives._teacher import LOOK_EVERY, cosine, follow, frozen_copy, health
from mae_bench.objectives._views import View, views_of
from mae_bench.objectives.dino import Config


class Distillation(nn.Module):
    """A student on all crops and a teacher on the large ones, which follows it."""

    kept = "teacher_backbone"
    """What is evaluated in the paper: the teacher is the better one throughout the training (arXiv 2104.14294, section 5.2)."""

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        if config.fixed_positions:
            _fix_positions(backbone)
        self.teacher_backbone = cast(Backbone, frozen_copy(backbone))
        self.head, self.teacher_head = _head(backbone, config), _head(backbone, config)
        self.teacher_head.load_state_dict(self.head.state_dict())
        self.teacher_head.requires_grad_(False)
        self.loss = _loss(config)
        self.temperature, self.frozen, self.look = config.teacher_temperature_start, True, True
        # Not requires_grad, which must not change once processes have agreed on who is trained.
        self.head.last_layer.weight_v.register_hook(lambda gradient: gradient * 0 if self.frozen else gradient)

    def before_step(self, step: int, steps: int) -> None:
        """Let the teacher follow the student, and set its temperature."""
        config, epoch = self.config, step * self.config.epochs / steps
        if step:
            momentum = cosine(config.momentum, 1.0, step - 1, steps)
            follow(self.teacher_backbone, self.backbone, momentum)
            follow(self.teacher_head, self.head, momentum)
        grown = min(1.0, epoch / config.teacher_temperature_epochs) if config.teacher_temperature_epochs else 1.0
        start, end = config.teacher_temperature_start, config.teacher_temperature
        self.temperature = start + (end - start) * grown
        self.frozen = epoch < config.last_layer_frozen_epochs
        self.look = step % LOOK_EVERY == 0

    def forward(self, crops: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of a batch of uint8 crops, `large` (B, 2, 3, H, W) and maybe `small` (B, n, 3, h, w)."""
        large = self._images(crops["large"])
        features = self._pooled(self.backbone, large)
        said = list(self.head(features).float().chunk(2))
        if "small" in crops:
            count = crops["small"].shape[1]
            said += self.head(self._pooled(self.backbone, self._images(crops["small"]))).float().chunk(count)
        with torch.no_grad():
            told = list(self.teacher_head(self._pooled(self.teacher_backbone, large)).float().chunk(2))
        with torch.autocast(large.device.type, enabled=False):
            loss = self.loss(told, said, teacher_temp=self.temperature)
        return {"distillation": loss, **(health(features) if self.look else {})}

    def _images(self, crops: Tensor) -> Tensor:
        """Crops (B, n, 3, H, W) uint8 as input (n*B, 3, H, W), the first of every image first."""
        return to_input(crops.transpose(0, 1).flatten(0, 1), self.backbone.spec)

    def _pooled(self, backbone: Backbone, images: Tensor) -> Tensor:
        (features,) = backbone(images)
        return features.pool(self.config.pool)


def _fix_positions(backbone: Backbone) -> None:
    """Let a backbone start with sine-cosine positions and keep them.

    Raises:
        ConfigError: it has no table of positions.
    """
    if not isinstance(backbone, TimmViT) or not backbone.arch.positions:
        raise ConfigError(f"{backbone.spec.name} has no table of positions to fix; set fixed_positions=False")
    start(backbone)


def crops(config: Config, spec: BackboneSpec) -> Callable[[Tensor], dict[str, Tensor]]:
    """Make two large and some small crops of an image as in arXiv 2104.14294, section 3.1, with BYOL's colours; uint8."""
    jitter = (0.4 * config.jitter, 0.4 * config.jitter, 0.2 * config.jitter, 0.1 * config.jitter)
    patch = spec.patch_size
    small = (_share(spec.image_size[0], config.local_share, patch), _share(spec.image_size[1], config.local_share, patch))
    first = View(spec.image_size, config.crop_scale, config.flip, jitter, blur=config.blur)
    second = View(spec.image_size, config.crop_scale, config.flip, jitter, blur=0.1 * config.blur, solarize=config.solarize)
    local = View(small, config.local_scale, config.flip, jitter, blur=0.5 * config.blur)
    large_views, small_views = views_of([first, second]), views_of([local] * config.local_crops)
    if not config.local_crops:
        return lambda image: {"large": large_views(image)}
    return lambda image: {"large": large_views(image), "small": small_views(image)}


def _share(side: int, share: float, patch: int) -> int:
    return max(1, round(side * share / patch)) * patch


def _head(backbone: Backbone, config: Config) -> Any:
    try:
        from lightly.models.modules.heads import DINOProjectionHead
    except ModuleNotFoundError as error:
        raise missing(error, "objective dino") from error
    with warnings.catch_warnings():
        # lightly's head is made with torch's older weight norm.
        warnings.filterwarnings("ignore", message=".*weight_norm.*", category=FutureWarning)
        return DINOProjectionHead(
            backbone.spec.embed_dim,
            config.hidden_dim,
            config.bottleneck_dim,
            config.prototypes,
            norm_last_layer=config.fix_norm_of_last_layer,
        )


def _loss(config: Config) -> Any:
    from lightly.loss import DINOLoss

    # The temperature is given with every call, so its own schedule is left empty.
    student, center = config.student_temperature, config.center_momentum
    return DINOLoss(config.prototypes, student_temp=student, center_momentum=center, warmup_teacher_temp_epochs=0)
