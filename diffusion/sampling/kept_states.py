"""The states of the reverse process that the option `keep` selects."""

from diffusion.ground.errors import UserError


def kept_states(keep: int | str, steps: int) -> range:
    """Selects from the states 0 (x_T) .. steps (x_0): the last k, `all`, or `every:k`, each k-th counted back from x_0,
    which is always included. Raises UserError for another value."""
    text = str(keep)
    if text == "all":
        return range(steps + 1)
    number = text.removeprefix("every:")
    if not number.isdigit() or not 1 <= int(number) <= steps + 1:
        raise UserError(f"keep={keep}: expected 1 to {steps + 1} (the last states), all, or every:k")
    if text.startswith("every:"):
        return range(steps % int(number), steps + 1, int(number))
    return range(steps + 1 - int(number), steps + 1)
