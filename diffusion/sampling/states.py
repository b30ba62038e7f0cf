"""Which states of the reverse process the word `keep` of a command line means."""

from diffusion.ground.errors import UserError


def kept_states(keep: int | str, steps: int) -> range:
    """Of the states 0 (x_T) .. steps (x_0), which is always among them: the last k, `all`, or `every:k`, each k-th
    counted back from x_0. Raises UserError otherwise."""
    text = str(keep)
    if text == "all":
        return range(steps + 1)
    number = text.removeprefix("every:")
    if not number.isdigit() or not 1 <= int(number) <= steps + 1:
        raise UserError(f"keep={keep}: expected 1 to {steps + 1} (the last states), all, or every:k")
    if text.startswith("every:"):
        return range(steps % int(number), steps + 1, int(number))
    return range(steps + 1 - int(number), steps + 1)
