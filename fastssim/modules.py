"""SSIM as loss modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from fastssim.checks import LOSS_REDUCTIONS, WITHOUT_MAP, check_alpha, check_loss, check_options, check_scales
from fastssim.functional import l1_ssim_loss, ms_ssim, ssim_loss
from fastssim.reference import MS_WEIGHTS
from fastssim.window import WANG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fastssim.window import Window


class SSIMLoss(nn.Module):
    """The loss 1 - SSIM; a drop-in ``nn.Module`` without parameters.

    Parameters
    ----------
    data_range, window, k1, k2, padding, reduction, unbiased, dims
        As for `fastssim.ssim_loss`.

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

    _reductions = LOSS_REDUCTIONS

    def __init__(
        self,
        *,
        data_range: float = 1.0,
        window: Window = WANG,
        k1: float = 0.01,
        k2: float = 0.03,
        padding: str = "valid",
        reduction: str = "mean",
        unbiased: bool = False,
        dims: int = 2,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "data_range": data_range,
            "window": window,
            "k1": k1,
            "k2": k2,
            "padding": padding,
            "reduction": reduction,
            "unbiased": unbiased,
            "dims": dims,
        }
        check_options(**self.options)
        check_loss(reduction, self._reductions)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return 1 - SSIM of the images x and y, where the mask, if any, has weight."""
        return ssim_loss(x, y, mask=mask, **self.options)

    def extra_repr(self) -> str:
        """Name the options in the module's representation."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class L1SSIMLoss(SSIMLoss):
    """The loss alpha * L1 + (1 - alpha) * (1 - SSIM), in one pass.

    Parameters
    ----------
    alpha
        As for `fastssim.l1_ssim_loss`.
    **options
        As for `SSIMLoss`.

    Raises
    ------
    TypeError, ValueError
        As `SSIMLoss`.

    Examples
    --------
    >>> import torch
    >>> loss = L1SSIMLoss(alpha=0.8)
    >>> x = torch.rand(1, 3, 32, 32, requires_grad=True)
    >>> loss(x, torch.rand(1, 3, 32, 32)).backward()
    """

    _reductions = WITHOUT_MAP

    def __init__(self, *, alpha: float = 0.8, **options: Any) -> None:
        super().__init__(**options)
        check_alpha(alpha)
        self.options["alpha"] = alpha

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss of the images x and y, where the mask, if any, has weight."""
        return l1_ssim_loss(x, y, mask=mask, **self.options)


class MSSSIMLoss(SSIMLoss):
    """The loss 1 - multi-scale SSIM.

    Parameters
    ----------
    weights, product
        As for `fastssim.ms_ssim`.
    **options
        As for `SSIMLoss`, of images only.

    Raises
    ------
    TypeError, ValueError
        As `SSIMLoss`.

    Examples
    --------
    >>> import torch
    >>> loss = MSSSIMLoss(weights=(0.3, 0.7))
    >>> x = torch.rand(1, 3, 32, 32, requires_grad=True)
    >>> loss(x, torch.rand(1, 3, 32, 32)).backward()
    """

    _reductions = WITHOUT_MAP

    def __init__(self, *, weights: Sequence[float] = MS_WEIGHTS, product: str = "channel", **options: Any) -> None:
        super().__init__(**options)
        if self.options.pop("dims") != 2:
            raise ValueError("dims is 3; multi-scale SSIM takes images, dims=2")
        self.options |= {"weights": check_scales(weights, product, self.options["reduction"]), "product": product}

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]  # masks have no scales
        """Return 1 - MS-SSIM of the images x and y."""
        return 1 - ms_ssim(x, y, **self.options)
