"""What dense heads begin with: deconvolutions that bring a backbone's feature map up to a quarter of the image."""

from __future__ import annotations

from torch import nn

STRIDE = 4
"""Pixels of the image per position of the map that deconvolutions end with."""
FILTERS = 32
INITIAL_STD = 0.001
"""Of the normal distribution that weights of dense heads begin with (public depth and pose code)."""


class Deconvolutions(nn.Sequential):
    """(n, channels, h, w) -> (n, self.channels, h * stride / 4, w * stride / 4).

    Each deconvolution has kernel 2, stride 2 and no bias, and is followed by BatchNorm and ReLU. Their number follows
    from the stride: three for the last map of a Swin (stride 32: the paper's three), two for its third stage or a ViT
    of patch 16, none for stride 4. Appendix E of the paper has kernel 2 and 32 filters; no bias and the
    start are those of its public depth code (MIM-Depth-Estimation).
    """

    def __init__(self, channels: int, stride: int, filters: int = FILTERS) -> None:
        """`channels`, `stride`: of the map that comes in. Raises ValueError for a stride but 4, 8, 16, 32, ..."""
        count = (stride // STRIDE).bit_length() - 1
        if stride < STRIDE or stride != STRIDE << count:
            raise ValueError(
                f"a feature map of stride {stride} does not reach stride {STRIDE} by doubling: "
                "use a backbone or a stage of stride 4, 8, 16 or 32"
            )
        super().__init__()
        self.channels = channels
        for _ in range(count):
            self.append(nn.ConvTranspose2d(self.channels, filters, kernel_size=2, stride=2, bias=False))
            self.append(nn.BatchNorm2d(filters))
            self.append(nn.ReLU(inplace=True))
            self.channels = filters
        init_dense_head(self)


def init_dense_head(head: nn.Module) -> None:
    """Draws the weights of all convolutions of a head anew, sets their biases to 0 and BatchNorm to the identity."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=INITIAL_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
