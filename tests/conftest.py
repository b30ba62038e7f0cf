"""Examples of hypothesis: the same in each run of `make test`, new ones in `make test-random`."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.register_profile("random", derandomize=False, print_blob=True)
settings.load_profile("repeatable")
