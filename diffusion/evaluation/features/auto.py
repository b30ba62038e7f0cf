"""The best available features."""

from dataclasses import dataclass

from diffusion.config.value_types import checked
from diffusion.data.base import Data, ImageData
from diffusion.evaluation.features import inception
from diffusion.evaluation.features.base import Extractor, Features
from diffusion.evaluation.features.classifier import Classifier
from diffusion.evaluation.features.inception import Inception
from diffusion.evaluation.features.pixels import Pixels


@checked
@dataclass(frozen=True)
class Auto(Features):
    """Inception if its weights file is in the cache folder; else a classifier of the dataset, if that has labels; else
    the pixels. Prints the choice."""

    name = "auto"

    def extractor(self, data: Data) -> Extractor:
        chosen = self._choice(data)
        print(f"features=auto: {chosen.name}", flush=True)
        return chosen.extractor(data)

    def _choice(self, data: Data) -> Features:
        if inception.PUBLISHED.path(None).is_file():
            return Inception()
        if isinstance(data, ImageData) and data.classes is not None and len(data.classes) > 1:
            return Classifier()
        return Pixels()
