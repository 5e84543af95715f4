"""Whether what a plan counted of a program can be: what cannot is said in place of its bounds."""

SLACK = 0.02  # products so small that a compiler makes sums of them are in no count


def doubts(
    executed: float, needed: float, moved: float, parameters: float, unknown: tuple[str, ...]
) -> list[str]:
    """Says in what the counts of a training step contradict each other.

    Args:
      executed: FLOPs that a chip works out in a step.
      needed: FLOPs of the model that fall to it.
      moved: bytes between the chip and its memory.
      parameters: bytes of those that it holds, which an update reads once or more.
      unknown: calls of the program that are in no count.

    Returns:
      A sentence for each contradiction; none where the counts can be trusted.
    """
    found = []
    calls = f" ({', '.join(unknown)} are in no count)" if unknown else ""
    if executed < (1 - SLACK) * needed:
        found.append(
            f"{executed:.3g} FLOPs were found in the program, and the model alone needs "
            f"{needed:.3g}: no share of the chip can be told{calls}"
        )
    if moved < parameters:
        found.append(
            f"{moved:.3g} bytes were found to be moved, and reading the parameters once takes "
            f"{parameters:.3g}: no time can be told{calls}"
        )
    return found
