"""The heads that classification tasks train."""

from collections.abc import Callable
from typing import Self

import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.nn.init import trunc_normal_

from backbones.contract import Backbone, Pool
from tasks.common.features import pixels
from tasks.common.freezing import last_blocks


class Probe(nn.Module):
    """The linear classifier of MAE's linear probe: normalised features, then one layer (arXiv 2111.06377, A.1)."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        # Without affine parameters it only brings features of different scale to one, so one learning rate fits all.
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        self.linear = nn.Linear(width, num_classes)
        trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def logits(self, features: Tensor) -> Tensor:
        """Scores (B, K) of features (B, C)."""
        return self.linear(self.norm(features))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Loss of (features (B, C), classes (B,))."""
        features, labels = batch
        return {"loss": cross_entropy(self.logits(features), labels)}


LARGEST_WEIGHT = 1e4
"""Of a head that can be of use: its inputs are normalised to one."""


class Heads(nn.Module):
    """Several probes on the same features, each with a learning rate of its own, computed by one matrix product.

    A head is a parameter of its own, so that an optimizer that adapts to the norm of a parameter treats it as if it were alone.
    """

    def __init__(self, width: int, num_classes: int, count: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        first = Probe(width, num_classes).linear
        # All start alike, so that they differ by their rate only.
        self.weights = nn.ParameterList(nn.Parameter(first.weight.detach().clone()) for _ in range(count))
        self.biases = nn.ParameterList(nn.Parameter(first.bias.detach().clone()) for _ in range(count))

    @torch.no_grad()
    def restart_runaways(self, step: int) -> None:
        """Put heads back to zero whose rate is far too large, before each step: LARS lets weights grow without end.

        So they end as bad heads and not as numbers that are not finite, which would end the training of all.
        """
        for weight, bias in zip(self.weights, self.biases, strict=True):
            if not float(weight.abs().max()) < LARGEST_WEIGHT:
                weight.zero_()
                bias.zero_()

    def logits(self, features: Tensor) -> Tensor:
        """Scores (B, heads, K) of features (B, C)."""
        scores = linear(self.norm(features), torch.cat(list(self.weights)), torch.cat(list(self.biases)))
        return scores.unflatten(1, (len(self.weights), -1))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Sum of the heads' losses over (features (B, C), classes (B,)): the gradient of each is that of its own loss."""
        features, labels = batch
        scores = self.logits(features)
        count = scores.shape[1]
        losses = cross_entropy(scores.flatten(0, 1), labels.repeat_interleave(count), reduction="sum")
        return {"loss": losses / len(labels)}


def head_number(model: nn.Module) -> Callable[[str], int] | None:
    """Which of several heads a parameter belongs to, by its name; None where there is one head."""
    return (lambda name: int(name.rpartition(".")[2])) if isinstance(model, Heads) else None


class FrozenProbe(nn.Module):
    """A probe on images, through a backbone that is frozen for good.

    The backbone is kept outside the module tree: it has no gradients, stays in eval mode whatever is called on the
    probe, is in no optimizer group and in no checkpoint.
    """

    def __init__(self, backbone: Backbone, pool: Pool, num_classes: int, device: str) -> None:
        super().__init__()
        self.probe = Probe(backbone.spec.embed_dim, num_classes)
        self._frozen = (backbone.to(device).eval().requires_grad_(False),)
        self._pool: Pool = pool

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (B, C) of uint8 images."""
        (backbone,) = self._frozen
        with torch.no_grad():
            (features,) = backbone(pixels(images, backbone), norm=True)
        return features.pool(self._pool)

    def logits(self, images: Tensor) -> Tensor:
        """Scores (B, K) of uint8 images."""
        return self.probe.logits(self.features(images))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Loss of (uint8 images (B, 3, H, W), classes (B,))."""
        images, labels = batch
        return self.probe((self.features(images), labels))


class Regularise:
    """What fine-tuning does to a batch of normalised images: random erasing, then mixup or cutmix (timm's order)."""

    def __init__(self, num_classes: int, *, smoothing: float, mixup: float, cutmix: float, erasing: float, device: str) -> None:
        self._erase = RandomErasing(erasing, mode="pixel", device=device) if erasing > 0 else None
        mixed = mixup > 0 or cutmix > 0
        self._mix = Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=num_classes) if mixed else None
        self.smoothing = 0.0 if mixed else smoothing
        """Label smoothing left for the loss: the mixed targets are smoothed already."""

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Give images and targets: classes (B,), or shares (B, K) where images are mixed."""
        if self._erase is not None:
            images = self._erase(images)
        return self._mix(images, labels) if self._mix is not None else (images, labels)


class FineTuned(nn.Module):
    """A whole network fine-tuned, with a fresh classifier.

    With pool `mean` the patch tokens are averaged as they leave the last block and normed by a fresh norm (MAE's `global_pool`);
    with `cls` the class token is taken after the pretrained final norm (its class-token variant).
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, pool: Pool, regularise: Regularise) -> None:
        super().__init__()
        self.backbone = backbone
        self._own_norm = pool == "mean"
        width = backbone.spec.embed_dim
        self.norm = nn.LayerNorm(width, eps=1e-6) if self._own_norm else nn.Identity()
        self.head = nn.Linear(width, num_classes)
        # Near zero, so that the first gradients do not shake the pretrained weights (mae `main_finetune.py`: std 2e-5).
        trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)
        self._pool: Pool = pool
        self._regularise = regularise
        if self._own_norm:
            _freeze_final_norm(backbone)

    def logits(self, images: Tensor) -> Tensor:
        """Scores (B, K) of uint8 images."""
        return self._classify(pixels(images, self.backbone))

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Loss of (uint8 images (B, 3, H, W), classes (B,)); erased and mixed here when that is on."""
        images, targets = self._regularise(pixels(batch[0], self.backbone), batch[1])
        return {"loss": cross_entropy(self._classify(images), targets, label_smoothing=self._regularise.smoothing)}

    def _classify(self, images: Tensor) -> Tensor:
        (features,) = self.backbone(images, norm=not self._own_norm)
        return self.head(self.norm(features.pool(self._pool)))


class PartlyTuned(FineTuned):
    """The last blocks and the classifier fine-tuned; what is below them stays frozen and in eval mode (MAE, Section 4.3)."""

    def __init__(self, backbone: Backbone, num_classes: int, *, pool: Pool, regularise: Regularise, blocks: float) -> None:
        """Freeze what is not trained.

        Args:
            backbone: changed in place.
            num_classes: of the data set.
            pool: see `FineTuned`.
            regularise: what is done to a batch.
            blocks: trained ones, from the last one down; half a block is its MLP half.
        """
        super().__init__(backbone, num_classes, pool=pool, regularise=regularise)
        self._trained = last_blocks(backbone, blocks)
        for name, parameter in backbone.named_parameters():
            if not self._trained(f"{name}."):
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; the frozen rest has no stochastic depth, whatever the mode."""
        super().train(mode)
        for name, module in self.backbone.named_modules():
            module.training = mode and self._trained(f"{name}.")
        return self


def _freeze_final_norm(backbone: Backbone) -> None:
    """Stop training what comes after the blocks: nothing reads it, and a process group waits for every gradient."""
    for name, parameter in backbone.named_parameters():
        if backbone.layer_id(name) > backbone.spec.depth:
            parameter.requires_grad_(False)
