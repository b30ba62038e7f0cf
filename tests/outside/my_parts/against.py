"""A guidance with a second model."""

from diffusion.guidance import TwoModels


class Against(TwoModels):
    """Away from what a weaker model says of no condition at all: classifier-free guidance and autoguidance at once."""

    def pair(self, denoiser, x_t, t, condition):
        nothing = None if condition is None else condition.without()
        return denoiser(x_t, t, condition), self.weaker(x_t, t, nothing)
