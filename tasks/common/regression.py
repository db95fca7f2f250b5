"""Multinomial logistic regression by scikit-learn."""

import logging
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """A fitted regression."""

    model: LogisticRegression
    converged: bool
    """Whether it ended before its last iteration."""

    def scores(self, features: Tensor, num_classes: int) -> Tensor:
        """Scores (N, K) of features (N, C); least of all for a class that was not in the training data."""
        found = np.full((len(features), num_classes), -np.inf)
        values = self.model.decision_function(features.double().numpy())
        # With two classes scikit-learn gives the score of the second one only.
        found[:, self.model.classes_] = values if values.ndim == 2 else np.stack([-values, values], axis=1)
        return torch.from_numpy(found)


def fit(features: Tensor, classes: Tensor, penalty: float, max_iter: int) -> Fitted:
    """Minimise the sum of the cross-entropies plus half the penalty times the squared weights.

    Args:
        features: (N, C).
        classes: (N,).
        penalty: L2; scikit-learn's `1 / C`.
        max_iter: iterations of L-BFGS at most.
    """
    model = LogisticRegression(C=1 / penalty, max_iter=max_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told below, in our own words
        model.fit(features.double().numpy(), classes.numpy())
    converged = int(model.n_iter_.max()) < max_iter
    if not converged:
        log.warning("logistic regression with penalty %g has not converged in %d iterations", penalty, max_iter)
    return Fitted(model, converged)
