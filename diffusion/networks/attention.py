"""Self-attention between the positions of an image."""

from torch import Tensor, nn

from diffusion.networks.blocks import Norm, pointwise, zero
from diffusion.networks.kernels.attention import attend
from diffusion.networks.kernels.choice import HasKernels


class Attention(HasKernels):
    """Self-attention between all positions of the image, in heads of `head_width` channels, with a residual.

    forward(x (B, width, H, W)) -> (B, width, H, W)
    """

    def __init__(self, width: int, *, head_width: int, norm: Norm):
        super().__init__()
        self.head_width = head_width
        self.norm = norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        qkv = pointwise(self.norm(x).flatten(2), self.qkv.weight, self.qkv.bias)
        h = attend(qkv.unflatten(1, (3, -1, self.head_width)), self.kernels).flatten(1, 2)
        return pointwise(h, self.out.weight, self.out.bias).unflatten(2, x.shape[2:]).add_(x)
