"""A network: a few convolutions at full resolution."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.conditioners.base import EMBEDDING, Conditioner, Conditioners
from diffusion.conditioners.condition import Condition
from diffusion.config.value_types import Count, checked
from diffusion.networks.embedding import TimeEmbedding


@checked
class Plain(nn.Module):
    """Residual 3x3 convolutions, each told the time and the condition.

    in_channels, out_channels, size, conditioners: given by the program; `takes` says which conditions fit.
    """

    takes = (EMBEDDING,)

    def __init__(
        self,
        in_channels: Count,
        out_channels: Count,
        size: Count | Sequence[Count],
        conditioners: Mapping[str, Conditioner] | None = None,
        width: Count = 16,
        layers: Count = 2,
    ):
        super().__init__()
        self.time_embedding = TimeEmbedding(width, 4 * width, freq_shift=1)
        self.conditioners = Conditioners(conditioners or {}, self.takes, 4 * width, in_channels)
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.embeddings = nn.ModuleList([nn.Linear(4 * width, width) for _ in range(layers)])
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(layers)])
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """x: (B, C, H, W), t: (B,). Returns the shape of x; twice the channels where the variance is learnt."""
        given, embedding = self.conditioners(condition, x), self.time_embedding(t)
        embedding = embedding if given.embedding is None else embedding + given.embedding
        x = self.conv_in(x)
        for layer, conv in zip(self.embeddings, self.convs, strict=True):
            x = x + conv(F.silu(x + layer(embedding)[:, :, None, None]))
        return self.conv_out(F.silu(x))
