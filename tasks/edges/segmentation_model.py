"""A segmentor of mmsegmentation around a backbone of the suite, as one module that gives losses and predictions."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from backbones.contract import Backbone
from backbones.source import Source
from mae_bench.core.errors import ConfigError
from tasks.edges.segmentation_config import segmentor_config
from tasks.edges.segmentation_mmseg import build_model
from tasks.suite.segmentation import dense_options

if TYPE_CHECKING:
    from tasks.suite.segmentation import Config


def build_backbone(source: Source, config: "Config", *, seed: int) -> Backbone:
    """Build the backbone of a recipe.

    Raises:
        ConfigError: it cannot be had that way, such as relative position tables beside positions of another kind.
    """
    try:
        return source.build(dense_options(config, source.spec), seed=seed)
    except ValueError as error:
        raise ConfigError(f"segmentation: {source.name}: {error}; try segmentation.relative_table=false") from None


class Segmenter(nn.Module):
    """A segmentor of mmseg behind the interface of the training engine."""

    segmentor: Any

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, batch: dict[str, list[Any]]) -> dict[str, Tensor]:
        """Loss terms of a batch of packed samples, whose sum is minimised; accuracies that mmseg adds are left out."""
        terms = self.segmentor(**self._prepare(batch, training=True), mode="loss")
        return {name: value for name, value in terms.items() if "loss" in name}

    @torch.no_grad()
    def predict(self, batch: dict[str, list[Any]]) -> list[Any]:
        """The `SegDataSample`s of a batch with `pred_sem_seg` at each one's original size; the module is to be in eval mode."""
        return self.segmentor(**self._prepare(batch, training=False), mode="predict")

    def predict_views(self, views: list[dict[str, list[Any]]]) -> Any:
        """One `SegDataSample` of several views of one image: the class of the largest mean probability.

        The same as mmseg's `SegTTAModel` gives, with one view's scores in memory at a time.
        """
        if len(views) == 1:
            return self.predict(views[0])[0]
        total: Tensor | None = None
        sample: Any = None
        for view in views:
            (sample,) = self.predict(view)
            share = sample.seg_logits.data.softmax(dim=0)
            total = share if total is None else total.add_(share)
            del sample.seg_logits
        if total is None:
            raise ValueError("no view of the image to predict")
        sample.pred_sem_seg.data = total.argmax(dim=0, keepdim=True)
        return sample

    def _prepare(self, batch: dict[str, list[Any]], *, training: bool) -> dict[str, Any]:
        preprocessor = self.segmentor.data_preprocessor
        # mmengine keeps the device beside the buffers and misses a move that a module around it makes.
        preprocessor._device = preprocessor.mean.device
        return preprocessor(batch, training)


def build_segmenter(
    backbone: Backbone,
    config: "Config",
    num_classes: int,
    *,
    class_weight: list[float] | None = None,
    distributed: bool = False,
) -> Segmenter:
    """Build the network: the backbone as it is, and a new neck and heads drawn from torch's current generator."""
    parts = segmentor_config(backbone, backbone.spec, config, num_classes, class_weight=class_weight, distributed=distributed)
    segmentor = build_model(parts)
    segmentor.init_weights()
    return Segmenter(segmentor)
