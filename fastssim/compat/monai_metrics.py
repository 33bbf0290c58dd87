"""The metrics of `fastssim.compat.monai`: the originals with another computation; needs MONAI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import monai.metrics as originals

from fastssim.compat.monai import compute_ms_ssim, similarity

if TYPE_CHECKING:
    from torch import Tensor


class SSIMMetric(originals.SSIMMetric):
    """SSIM over batches; parameters, buffers and results as ``monai.metrics.SSIMMetric``.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(3, 1, 32, 32)
    >>> SSIMMetric(spatial_dims=2)(x, x).tolist()
    [[1.0], [1.0], [1.0]]
    """

    def _compute_metric(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return similarity(
            y_pred, y, self.spatial_dims, self.data_range, self.kernel_type, self.kernel_size, self.kernel_sigma,
            self.k1, self.k2,
        )[:, None]  # fmt: skip


class MultiScaleSSIMMetric(originals.MultiScaleSSIMMetric):
    """Multi-scale SSIM over batches; as ``monai.metrics.MultiScaleSSIMMetric``.

    Examples
    --------
    >>> import torch
    >>> x = torch.rand(1, 1, 176, 176)
    >>> MultiScaleSSIMMetric(spatial_dims=2)(x, x).tolist()
    [[1.0]]
    """

    def _compute_metric(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return compute_ms_ssim(
            y_pred, y, self.spatial_dims, self.data_range, self.kernel_type, self.kernel_size, self.kernel_sigma,
            self.k1, self.k2, self.weights,
        )  # fmt: skip
