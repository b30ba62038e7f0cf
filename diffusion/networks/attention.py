"""Self-attention between the positions of an image, and a fast way to it for small heads on a CPU."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.networks.blocks import Norm, pointwise, zero


class Attention(nn.Module):
    """Self-attention between all positions of the image, in heads of `head_width` channels, with a residual.

    forward(x (B, width, H, W)) -> (B, width, H, W)
    """

    def __init__(self, width: int, *, head_width: int, norm: Norm):
        super().__init__()
        self.head_width = head_width
        self.norm = norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zero(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2)
        each = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        q, k, v = (pointwise(tokens, *layer).unflatten(1, (-1, self.head_width)) for layer in each)
        h = pointwise(attend(q, k, v).flatten(1, 2), self.out.weight, self.out.bias)
        return h.unflatten(2, x.shape[2:]).add_(x)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q^T k / sqrt(d)) v^T in each head. q, k, v: (B, heads, d, N), and so is what is returned."""
    if q.is_cpu and q.dtype == torch.float32 and q.shape[2] <= _SMALL and not torch.compiler.is_compiling():
        return _SmallHeads.apply(*(x.flatten(0, 1) for x in (q, k, v))).unflatten(0, q.shape[:2])
    return F.scaled_dot_product_attention(*(x.mT.contiguous() for x in (q, k, v))).mT


_SMALL = 12  # channels of a head: above, torch's own kernel is as fast
_IN_CACHE = 1 << 19  # scores at a time, 2 MB of them


class _SmallHeads(torch.autograd.Function):
    """`attend` on a CPU for q, k, v (heads, d, N), where torch's own kernel takes 2.3 times as long with d = 8.

    A few heads at a time, whose scores stay in the cache; they are computed again on the way back (Dao et al. 2022,
    FlashAttention). exp2 takes a third of the time of exp, and a product with d rows a quarter of that with d columns.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads, d, n = q.shape
        out = torch.empty_like(v)
        log_sum = q.new_empty(heads, n, 1)  # log2 of the softmax's denominator
        for some in _pieces(heads, n):
            scores = torch.baddbmm(log_sum[some], q[some].mT, k[some], beta=0, alpha=_scale(d))
            highest = scores.amax(2, keepdim=True)
            sums = scores.sub_(highest).exp2_().sum(2, keepdim=True)
            torch.bmm(v[some], scores.mT, out=out[some]).div_(sums.mT)
            log_sum[some] = highest.add_(sums.log2_())
        ctx.save_for_backward(q, k, v, out, log_sum)
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor, ...]:
        q, k, v, out, log_sum = ctx.saved_tensors
        heads, d, n = q.shape
        d_out = d_out.contiguous()
        d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        mean = (d_out * out).sum(1)[:, :, None]  # of the gradient of the scores, in each row
        for some in _pieces(heads, n):
            softmax = torch.baddbmm(log_sum[some], q[some].mT, k[some], beta=-1, alpha=_scale(d)).exp2_()
            d_scores = torch.baddbmm(mean[some], d_out[some].mT, v[some], beta=-1).mul_(softmax)
            torch.bmm(d_out[some], softmax, out=d_v[some])
            torch.bmm(k[some], d_scores.mT, out=d_q[some])
            torch.bmm(q[some], d_scores, out=d_k[some])
        return d_q.mul_(d**-0.5), d_k.mul_(d**-0.5), d_v


def _scale(d: int) -> float:
    return math.log2(math.e) / math.sqrt(d)


def _pieces(heads: int, n: int) -> list[slice]:
    some = max(1, _IN_CACHE // n**2)
    return [slice(start, start + some) for start in range(0, heads, some)]
