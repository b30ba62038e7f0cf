from diffusion.samplers.base import Path, Sampler, combine


class EulerHalf(Sampler):
    """Takes half of eps along: blurred on purpose."""

    def step(self, path: Path, x_t, t, s):
        prediction = path.predict(x_t, t)
        alpha_s, sigma_s = path.schedule(s)
        return combine((alpha_s, prediction.x_0), (sigma_s / 2, prediction.eps))
