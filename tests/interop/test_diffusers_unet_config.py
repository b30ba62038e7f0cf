"""The config of a `UNet2DModel`."""

import pytest

from diffusion.ground.errors import UserError
from diffusion.interop import diffusers as interop
from diffusion.interop import foreign
from tests.interop.diffusers_models import UNET

pytestmark = pytest.mark.filterwarnings("ignore:alpha_bar_T", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize("value", [None, "x", [], {}, 1e400, [None]], ids=str)
@pytest.mark.parametrize("name", ["block_out_channels", "layers_per_block", "sample_size", "norm_eps", "in_channels"])
def test_an_odd_config_is_rejected_with_a_message(changed, name, value):
    folder = changed(UNET, **{name: value})
    with pytest.raises(UserError):
        foreign.write(interop.read(folder), folder / "made.ckpt")
