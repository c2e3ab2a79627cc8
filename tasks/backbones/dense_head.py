"""The deconvolutions between a backbone's feature map and the prediction of a dense head (pose, depth)."""

from __future__ import annotations

from torch import Tensor, nn


class Deconvolutions(nn.Module):
    """Deconvolutions (kernel 2, stride 2, no bias), each with BatchNorm and ReLU, that each double a map's sides.

    Source: appendix E of the paper (three, of 32 filters: from stride 32 to 4); kernels without bias and the initial
    weights from its depth code, SwinTransformer/MIM-Depth-Estimation.
    """

    def __init__(self, in_channels: int, stride_in: int, stride_out: int = 4, filters: int = 32) -> None:
        """`stride_in`, `stride_out`: pixels of the image along a side per position of the map that comes in, and of
        that which goes out: from the third stage, of stride 16, it takes two deconvolutions.

        Raises ValueError when doubling does not lead from one to the other.
        """
        super().__init__()
        ratio, remainder = divmod(stride_in, stride_out)
        if remainder or ratio < 1 or ratio & (ratio - 1):
            raise ValueError(
                f"deconvolutions that double a map do not lead from stride {stride_in} to stride {stride_out}: take a "
                f"feature map of stride {stride_out} times a power of two"
            )
        self.count = ratio.bit_length() - 1
        """Number of deconvolutions."""
        self.out_channels = filters if self.count else in_channels
        layers: list[nn.Module] = []
        for index in range(self.count):
            channels = in_channels if index == 0 else filters
            deconvolution = nn.ConvTranspose2d(channels, filters, kernel_size=2, stride=2, bias=False)
            nn.init.normal_(deconvolution.weight, std=0.001)
            layers += [deconvolution, nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, out_channels, h * stride_in / stride_out, w * stride_in / stride_out)."""
        out: Tensor = self.layers(features)
        return out
