"""What a masked autoencoder predicts of a patch (arXiv 2111.06377, section 3 and Table 1d).

Letters in shape comments: B batch, N patches, p patch size, D numbers of a target.
"""

import torch
from torch import Tensor, nn

VARIANCE_EPS = 1e-6
"""Added to a patch's variance before its root is taken (the released code)."""


class Pixels(nn.Module):
    """The pixels themselves."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.dim = patch**2 * 3

    def forward(self, patches: Tensor) -> Tensor:
        """Target (B, N, D) of patches (B, N, p * p * 3)."""
        return patches

    def painted(self, predicted: Tensor, patches: Tensor) -> Tensor:
        """Pixels of a prediction; `patches` are the original ones."""
        return predicted


class NormalisedPixels(Pixels):
    """Pixels of each patch by its own mean and deviation."""

    def forward(self, patches: Tensor) -> Tensor:
        """Target (B, N, D) of patches (B, N, p * p * 3)."""
        return normalise_patches(patches)[0]

    def painted(self, predicted: Tensor, patches: Tensor) -> Tensor:
        """Pixels of a prediction. A patch's own mean and deviation are not predicted: they are those of the original."""
        _, mean, deviation = normalise_patches(patches)
        return predicted * deviation + mean


class Components(Pixels):
    """The largest coefficients of a principal component analysis of patches."""

    mean: Tensor
    basis: Tensor

    def __init__(self, patch: int, dims: int) -> None:
        super().__init__(patch)
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("basis", torch.eye(self.dim)[:, :dims].clone())
        self.dim = dims

    def fit(self, patches: Tensor) -> None:
        """Find the components of patches (M, p * p * 3)."""
        self.mean.copy_(patches.mean(dim=0))
        centred = (patches - self.mean).double()
        # Eigenvalues come in rising order.
        _, vectors = torch.linalg.eigh(centred.T @ centred)
        self.basis.copy_(vectors.flip(1)[:, : self.dim])

    def forward(self, patches: Tensor) -> Tensor:
        """Target (B, N, D) of patches (B, N, p * p * 3)."""
        return (patches - self.mean) @ self.basis

    def painted(self, predicted: Tensor, patches: Tensor) -> Tensor:
        """Pixels of a prediction."""
        return predicted @ self.basis.T + self.mean


def normalise_patches(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each patch by its own mean and (unbiased) variance; also gives that mean and deviation."""
    mean = patches.mean(dim=-1, keepdim=True)
    deviation = (patches.var(dim=-1, keepdim=True) + VARIANCE_EPS).sqrt()
    return (patches - mean) / deviation, mean, deviation
