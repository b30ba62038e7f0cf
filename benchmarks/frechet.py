"""The Frechet distance of samples to real images, by the features of a small classifier that is trained here.

For greyscale images of one size with labels, such as MNIST and digits. The distances compare models of one dataset;
they are not the FID of the literature, which uses the features of another network.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.ground import images

FEATURES = 64
STEPS, BATCH = 1400, 128  # three epochs of MNIST


def classifier(x: Tensor, y: Tensor) -> nn.Sequential:
    """A small convolutional classifier of images uint8 (N, 1, H, W) with labels int64 (N,); its last layer has 64
    inputs, the features. Its weights come from torch's global generator: seed it for reproducible distances."""
    width = 64 * -(-x.shape[-2] // 4) * -(-x.shape[-1] // 4)
    convolutions = [nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    made = nn.Sequential(*convolutions, nn.Linear(width, FEATURES), nn.ReLU(), nn.Linear(FEATURES, 10))
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-3)
    epochs = max(1, round(STEPS * BATCH / len(x)))
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(made(images.from_uint8(x[rows])), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return made


@torch.no_grad()
def accuracy(judge: nn.Sequential, x: Tensor, y: Tensor) -> float:
    return (judge(images.from_uint8(x)).argmax(1) == y).double().mean().item()


@torch.no_grad()
def features(judge: nn.Sequential, x: Tensor) -> Tensor:
    """The features of images uint8 (N, 1, H, W): float64 (N, 64)."""
    return torch.cat([judge[:-1](images.from_uint8(part)) for part in x.split(1000)]).double()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features (N, D) (Heusel et al. 2017)."""
    cov_a, cov_b = a.T.cov(), b.T.cov()
    root = torch.linalg.eigvals(cov_a @ cov_b).sqrt().real.sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root).item()
