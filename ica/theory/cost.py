"""What a forward pass costs: multiply-adds by counting, wall-clock time by measuring."""

import time
from collections.abc import Callable

import torch

from ica import checks
from ica.transformer import TransformerConfig


def multiply_adds(config: TransformerConfig, n: int) -> int:
    """Multiply-adds of one forward pass over n tokens; softmax, biases and additions are not counted.

    Per block: 4 n width inner for the maps of attention (inner = heads * head_width), 2 n^2 inner for scores
    and averages, 2 n width hidden for the network. The embedding and the readout come on top.
    """
    checks.whole("n", n, 1)
    inner = config.heads * config.head_width
    block = 4 * n * config.width * inner + 2 * n * n * inner + 2 * n * config.width * config.hidden
    return config.layers * block + n * config.width * (config.inputs + config.outputs)


@torch.no_grad()
def wall_times(run: Callable[[], object], repeats: int, warm_up: int = 2) -> list[float]:
    """Seconds of each of `repeats` calls, after some calls that do not count."""
    checks.whole("repeats", repeats, 1)
    for _ in range(warm_up):
        run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds
