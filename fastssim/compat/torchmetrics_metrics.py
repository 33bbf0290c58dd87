"""The metrics of `fastssim.compat.torchmetrics`: the originals with another ``update``; needs torchmetrics."""

from __future__ import annotations

from typing import Any

import torchmetrics.image as originals
from torch import Tensor

from fastssim.compat.torchmetrics import multiscale, similarity


class StructuralSimilarityIndexMeasure(originals.StructuralSimilarityIndexMeasure):
    """SSIM over batches; parameters, states and results as ``torchmetrics.image.StructuralSimilarityIndexMeasure``.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(3, 3, 64, 64)
    >>> StructuralSimilarityIndexMeasure(data_range=1.0)(x, x)
    tensor(1.)
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take in a batch."""
        found = similarity(
            preds, target, self.gaussian_kernel, self.sigma, self.kernel_size, self.data_range, self.k1, self.k2,
            self.return_full_image, self.return_contrast_sensitivity,
        )  # fmt: skip
        if isinstance(found, tuple):
            found, image = found
            self.image_return.append(image)  # type: ignore[operator, union-attr]  # a list, see there
        _take_in(self, found)
        if isinstance(self.similarity, Tensor):
            self.total += len(found)  # type: ignore[operator]  # no annotation: torch.jit.script reads them


class MultiScaleStructuralSimilarityIndexMeasure(originals.MultiScaleStructuralSimilarityIndexMeasure):
    """Multi-scale SSIM over batches; as ``torchmetrics.image.MultiScaleStructuralSimilarityIndexMeasure``.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(1, 3, 176, 176)
    >>> MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0)(x, x)
    tensor(1.)
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take in a batch."""
        found = multiscale(
            preds, target, self.gaussian_kernel, self.sigma, self.kernel_size, self.data_range, self.k1, self.k2,
            self.betas, self.normalize,
        )  # fmt: skip
        _take_in(self, found)
        self.total += len(found)  # type: ignore[operator]  # as above


def _take_in(metric: Any, each: Tensor) -> None:
    """Add every image's value to the states."""
    if isinstance(metric.similarity, list):
        metric.similarity.append(each)
    else:
        metric.similarity += each.sum()
