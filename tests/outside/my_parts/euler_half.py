from diffusion.samplers.base import Sampler, SolverState, combine


class EulerHalf(Sampler):
    """Takes half of eps along: blurred on purpose."""

    def step(self, solver: SolverState, x_t, t, s):
        prediction = solver.predict(x_t, t)
        alpha_s, sigma_s = solver.schedule(s)
        return combine((alpha_s, prediction.x_0), (sigma_s / 2, prediction.eps))
