"""Features of a small classifier that is trained on the labelled dataset; needs no download."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from diffusion.config.value_types import Count, Natural, Positive, checked
from diffusion.data.base import Data
from diffusion.evaluation.features.base import BATCH, Extractor, Features, digest_of
from diffusion.ground import images, random
from diffusion.ground.bar import Bar
from diffusion.ground.errors import UserError
from diffusion.ground.files import atomic, cache_folder

VERSION = 1  # of the network and training in this file
_MEASURED = 10_000  # training images used to scale the features
_SIDE = 32  # pixels: larger images are downsampled to it by averaging


class Network(nn.Module):
    """uint8 (B, C, H, W) -> features (B, width) and logits (B, classes).

    scale: factor of the features such that the mean of their variances over the training images is 1.
    """

    scale: Tensor

    def __init__(self, channels: int, side: int, width: int, classes: int):
        super().__init__()
        self.side = side
        self.stem = nn.Conv2d(channels, 32, 3, 1, 1)
        self.down_1, self.down_2 = nn.Conv2d(32, 64, 3, 2, 1), nn.Conv2d(64, 96, 3, 2, 1)
        self.hidden = nn.Linear(96 * math.ceil(side / 4) ** 2, width)
        self.out = nn.Linear(width, classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = images.from_uint8(x)
        if h.shape[-1] != self.side or h.shape[-2] != self.side:
            h = F.interpolate(h, (self.side, self.side), mode="area")
        for layer in self.stem, self.down_1, self.down_2:
            h = F.relu(layer(h))
        h = F.relu(self.hidden(h.flatten(1)))
        return h * self.scale, self.out(h)


@checked
@dataclass(frozen=True)
class Classifier(Features):
    """The last layer before the logits of a convolutional network, trained on the training split and its labels, scaled
    to a mean variance of 1.

    It is trained at its first use, and stored with its recipe in $XDG_CACHE_HOME/diffusion or ~/.cache/diffusion.
    width: d. steps: of 128 images, with a cosine learning rate from `lr` to 0. seed: of the weights and the order
    of the images.
    """

    width: Count = 64
    steps: Count = 2000
    lr: Positive = 2e-3
    seed: Natural = 0

    name = "classifier"

    def extractor(self, data: Data) -> Extractor:
        recipe = {"features": self.name, "version": VERSION, **asdict(self), "data": data.fingerprint("train")}
        key = hashlib.blake2b(json.dumps(recipe, sort_keys=True).encode(), digest_size=12).hexdigest()
        path = cache_folder() / "features" / f"classifier-{key}.safetensors"
        network = self._network(data)
        try:
            network.load_state_dict(safetensors.torch.load_file(path))
            with safe_open(path, "pt") as file:
                accuracy = float(file.metadata()["accuracy"])
        except FileNotFoundError:
            accuracy = self._train(network, data)
            with atomic(path) as temporary:
                about = {"recipe": json.dumps(recipe), "accuracy": repr(accuracy)}
                safetensors.torch.save_file(network.state_dict(), temporary, metadata=about)
        except (SafetensorError, RuntimeError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}): remove it to train it again") from None
        described = {**recipe, "weights": digest_of(network.state_dict()), "accuracy": round(accuracy, 4)}
        return Extractor(network, self.width, described)

    def _network(self, data: Data) -> Network:
        """Untrained, with weights from the seed. Raises UserError for a dataset without labels."""
        dtype, (channels, height, width) = data.declaration
        if data.classes is None or len(data.classes) < 2 or dtype != torch.uint8:
            raise UserError(
                f"features=classifier needs labels, but {data.name} has none: use features=pixels, or "
                "features=inception or dinov2 with a weights file"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Network(channels, min(_SIDE, max(height, width)), self.width, len(data.classes))

    def _train(self, network: Network, data: Data) -> float:
        """Trains the network; returns its accuracy on the validation split."""
        x, condition = data.split("train")
        y = condition.tensors["label"]
        print(f"features=classifier: trained once on the {len(x):,} training images of {data.name}", flush=True)
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.lr)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        with Bar(total=self.steps, desc="classifier", unit=" step") as bar, torch.enable_grad():
            for rows in self._batches(len(x)):
                loss = F.cross_entropy(network(torch.as_tensor(x[rows]))[1], y[rows], ignore_index=-1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                decay.step()
                bar.update()
        network.eval()
        rows = torch.arange(0, len(x), -(-len(x) // _MEASURED))
        with torch.inference_mode():
            features = torch.cat([network(torch.as_tensor(x[few]))[0] for few in rows.split(1000)])
        network.scale.copy_(features.double().var(0).mean().rsqrt())
        return _accuracy(network, data)

    def _batches(self, n: int):
        """`steps` batches of rows, epoch after epoch, each in another order."""
        size, done, epoch = min(2 * BATCH, n), 0, 0
        while done < self.steps:
            for rows in random.permutation(self.seed, f"classifier/{epoch}", n).split(size)[: self.steps - done]:
                done += 1
                yield rows
            epoch += 1


@torch.inference_mode()
def _accuracy(network: Network, data: Data) -> float:
    x, condition = data.split("val")
    y = condition.tensors["label"]
    right = sum(
        (network(torch.as_tensor(x[rows]))[1].argmax(1) == y[rows]).sum().item()
        for rows in torch.arange(len(x)).split(1000)
    )
    return right / len(x)
