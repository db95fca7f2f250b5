"""Objectives on two views of an image with a momentum teacher: BYOL and MoCo v3. Heads are lightly's."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from backbones.contract import Backbone, BackboneSpec
from mae_bench.core.find import missing
from mae_bench.objectives._parts import freeze_patch_projection, start, synchronised, to_input
from mae_bench.objectives._settings import PairConfig
from mae_bench.objectives._teacher import LOOK_EVERY, cosine, follow, frozen_copy, health
from mae_bench.objectives._views import View, views_of

Compare = Callable[[Tensor, Tensor], Tensor]


class Pair(nn.Module):
    """A student with a predictor, and a teacher that follows it; each view is predicted from the other."""

    def __init__(
        self, backbone: Backbone, projector: nn.Module, predictor: nn.Module, config: PairConfig, term: str, compare: Compare
    ) -> None:
        """Put heads on a backbone and make the teacher.

        Args:
            backbone: what is pretrained; initialised here.
            projector: head of student and teacher.
            predictor: head of the student alone.
            config: pooling, momentum.
            term: name of the loss.
            compare: loss of predictions (B, C) from one view against the teacher's projections (B, C) of the other.
        """
        super().__init__()
        self.backbone, self.projector, self.predictor, self.config = (
            backbone,
            synchronised(projector),
            synchronised(predictor),
            config,
        )
        self.term, self.compare = term, compare
        start(backbone)
        freeze_patch_projection(backbone, config.freeze_patch_projection)
        self.teacher_backbone = cast(Backbone, frozen_copy(backbone))
        self.teacher_projector = frozen_copy(self.projector)
        self.look = True

    def before_step(self, step: int, steps: int) -> None:
        """Let the teacher follow the student, with a momentum that grows to 1 (MoCo v3 and BYOL: half a cosine)."""
        momentum = cosine(self.config.momentum, 1.0, step, steps)
        follow(self.teacher_backbone, self.backbone, momentum)
        follow(self.teacher_projector, self.projector, momentum)
        self.look = step % LOOK_EVERY == 0

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        """Loss of a batch of pairs of uint8 views (B, 2, 3, H, W)."""
        images = to_input(views.transpose(0, 1).flatten(0, 1), self.backbone.spec)
        features = self._pooled(self.backbone, images)
        # Batch norm of the heads sees one view at a time, as in the papers.
        predictions = [self.predictor(self.projector(part)).float() for part in features.chunk(2)]
        with torch.no_grad():
            pooled = self._pooled(self.teacher_backbone, images)
            targets = [self.teacher_projector(part).float() for part in pooled.chunk(2)]
        # Similarities divided by a small temperature need all their digits.
        with torch.autocast(images.device.type, enabled=False):
            loss = self.compare(predictions[0], targets[1]) + self.compare(predictions[1], targets[0])
            return {self.term: loss, **(health(features) if self.look else {})}

    def _pooled(self, backbone: Backbone, images: Tensor) -> Tensor:
        (features,) = backbone(images)
        return features.pool(self.config.pool)


def byol_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the normalised vectors (B, C), 2 - 2 cos, averaged (arXiv 2006.07733, equations 2 and 3)."""
    return 2 - 2 * functional.cosine_similarity(predictions, targets, dim=1).mean()


def moco_loss(predictions: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """InfoNCE over the keys (B, C) of all processes, times twice the temperature (arXiv 2104.02057, algorithm 1)."""
    from lightly.utils import dist

    queries = functional.normalize(predictions, dim=1)
    keys = functional.normalize(targets, dim=1)
    if dist.world_size() > 1:
        keys = torch.cat(list(dist.gather(keys)))
    logits = queries @ keys.T / temperature
    labels = torch.arange(len(queries), device=queries.device) + len(queries) * dist.rank()
    return 2 * temperature * functional.cross_entropy(logits, labels)


def pair_of_views(config: PairConfig, spec: BackboneSpec) -> Callable[[Tensor], Tensor]:
    """Make pairs of views as in arXiv 2006.07733, appendix B: (2, 3, H, W) uint8."""
    jitter = (0.4 * config.jitter, 0.4 * config.jitter, 0.2 * config.jitter, 0.1 * config.jitter)
    chances = zip(config.blur, config.solarize, strict=True)
    return views_of([View(spec.image_size, config.crop_scale, config.flip, jitter, blur=b, solarize=s) for b, s in chances])


def lightly_heads(objective: str) -> Any:
    """Lightly's projection and prediction heads.

    Raises:
        EnvironmentFault: lightly is not installed.
    """
    try:
        from lightly.models.modules import heads
    except ModuleNotFoundError as error:
        raise missing(error, f"objective {objective}") from error
    return heads
