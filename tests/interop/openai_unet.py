"""The UNet of OpenAI's improved- and guided-diffusion in short, with their modules' names: the peer of the tests.

Written anew after openai/guided-diffusion, and sharing nothing with this package: cosines first, attention by einsum
over their two layouts of q, k and v, rates instead of resolutions.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def norm(channels):
    return nn.GroupNorm(32, channels)


class Resize(nn.Module):
    def __init__(self, kind, channels, learned):
        super().__init__()
        self.kind = kind
        if learned and kind == "down":
            self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        elif learned:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, emb=None):
        if self.kind == "down":
            return self.op(x) if hasattr(self, "op") else F.avg_pool2d(x, 2)
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return self.conv(x) if hasattr(self, "conv") else x


class ResBlock(nn.Module):
    def __init__(self, channels, out, emb, film, resize=None):
        super().__init__()
        self.film = film
        self.in_layers = nn.Sequential(norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, out * 2 if film else out))
        self.out_layers = nn.Sequential(norm(out), nn.SiLU(), nn.Dropout(0.3), nn.Conv2d(out, out, 3, padding=1))
        self.skip_connection = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.resize = Resize(resize, channels, learned=False) if resize else nn.Identity()

    def forward(self, x, emb):
        normalise, activate, convolve = self.in_layers
        h = convolve(self.resize(activate(normalise(x))))
        e = self.emb_layers(emb)[..., None, None]
        if self.film:
            half = e.shape[1] // 2
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + e[:, :half]) + e[:, half:])
        else:
            h = self.out_layers(h + e)
        return h + self.skip_connection(self.resize(x))


class AttentionBlock(nn.Module):
    def __init__(self, channels, heads, order):
        super().__init__()
        self.heads, self.order = heads, order
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x, emb=None):
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x).reshape(b, c, h * w))
        layout = (self.heads, 3, -1) if self.order == "heads_first" else (3, self.heads, -1)
        letters = "bhkct->kbhct" if self.order == "heads_first" else "bkhct->kbhct"
        q, k, v = torch.einsum(letters, qkv.unflatten(1, layout))
        weight = (torch.einsum("bhct,bhcs->bhts", q, k) / math.sqrt(q.shape[2])).softmax(-1)
        out = torch.einsum("bhts,bhcs->bhct", weight, v).flatten(1, 2)
        return x + self.proj_out(out).reshape(b, c, h, w)


class Blocks(nn.Sequential):
    def forward(self, x, emb):
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, emb)
        return x


class OpenAIUNet(nn.Module):
    """rates: the downsampling factors at which there is attention. heads: a number, or None for heads of head_width."""

    def __init__(
        self, channels, out, width, mults, layers, rates, heads=None, head_width=None, order="heads_first", film=True,
        updown=False, classes=None,
    ):  # fmt: skip
        super().__init__()
        self.width = width
        emb = 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        if classes:
            self.label_emb = nn.Embedding(classes, emb)

        def residual(c, o, resize=None):
            return ResBlock(c, o, emb, film, resize)

        def attention(c):
            return AttentionBlock(c, heads or c // head_width, order)

        def resampler(kind, c):
            return residual(c, c, kind) if updown else Resize(kind, c, learned=True)

        c = int(mults[0] * width)
        self.input_blocks = nn.ModuleList([Blocks(nn.Conv2d(channels, c, 3, padding=1))])
        stack, rate = [c], 1
        for i, mult in enumerate(mults):
            for _ in range(layers):
                o = int(mult * width)
                self.input_blocks.append(Blocks(residual(c, o), *[attention(o)] * (rate in rates)))
                c = o
                stack.append(c)
            if i + 1 < len(mults):
                self.input_blocks.append(Blocks(resampler("down", c)))
                stack.append(c)
                rate *= 2
        self.middle_block = Blocks(residual(c, c), attention(c), residual(c, c))
        self.output_blocks = nn.ModuleList()
        for i, mult in reversed(list(enumerate(mults))):
            for j in range(layers + 1):
                o = int(mult * width)
                parts = [residual(c + stack.pop(), o), *[attention(o)] * (rate in rates)]
                c = o
                if i and j == layers:
                    parts.append(resampler("up", c))
                    rate //= 2
                self.output_blocks.append(Blocks(*parts))
        self.out = nn.Sequential(norm(c), nn.SiLU(), nn.Conv2d(c, out, 3, padding=1))

    def forward(self, x, t, y=None):
        half = self.width // 2
        angles = t.float()[:, None] * 10_000 ** (-torch.arange(half) / half)
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1))
        if hasattr(self, "label_emb"):
            emb = emb + self.label_emb(y)
        skips = []
        for block in self.input_blocks:
            x = block(x, emb)
            skips.append(x)
        x = self.middle_block(x, emb)
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], 1), emb)
        return self.out(x)


def random_peer(seed=0, **options):
    """A peer whose every weight matters: also those that start as 0 in training."""
    torch.manual_seed(seed)
    peer = OpenAIUNet(**options).eval()
    with torch.no_grad():
        for name, p in peer.named_parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn_like(p))
            elif "emb" in name:
                p.mul_(2)
    return peer
