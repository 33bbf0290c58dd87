"""SSIM as a loss module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from fastssim.functional import check_options, ssim_loss
from fastssim.window import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from fastssim.window import Window

_GAUSSIAN = Gaussian()


class SSIMLoss(nn.Module):
    """The loss 1 - SSIM; a drop-in ``nn.Module`` without parameters.

    Parameters
    ----------
    data_range, window, k1, k2, padding, reduction
        As for `fastssim.ssim`.

    Raises
    ------
    TypeError, ValueError
        At construction for an option that does not exist, at the call for images that do not fit.

    Examples
    --------
    >>> import torch
    >>> loss = SSIMLoss(data_range=1.0)
    >>> x = torch.rand(4, 3, 32, 32, requires_grad=True)
    >>> loss(x, torch.rand(4, 3, 32, 32)).backward()
    """

    def __init__(
        self,
        *,
        data_range: float = 1.0,
        window: Window = _GAUSSIAN,
        k1: float = 0.01,
        k2: float = 0.03,
        padding: str = "valid",
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "data_range": data_range,
            "window": window,
            "k1": k1,
            "k2": k2,
            "padding": padding,
            "reduction": reduction,
        }
        check_options(**self.options)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return 1 - SSIM of the images x and y, (N, C, H, W)."""
        return ssim_loss(x, y, **self.options)

    def extra_repr(self) -> str:
        """Name the options in the module's representation."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
