"""The roles of softmax, heads, feed-forward network and depth: small transformers trained to imitate one gradient step.

Two tasks share one linear model: the Bradley-Terry step ("BT", two responses) and the Plackett-Luce step ("PL", four).
The notebooks `ablations` and `linear_attention` train the same configurations on the same prompts.
"""

import math
from dataclasses import dataclass

import torch

from ica.theory.imitation import Examples, GradientStep, Schedule, Trained, train
from ica.theory.limits import linear_attention_bound
from ica.transformer import TransformerConfig, initial

ANGLE = 0.7
W = 0.7 * torch.tensor(
    [[math.cos(ANGLE), -math.sin(ANGLE)], [math.sin(ANGLE), math.cos(ANGLE)]], dtype=torch.float64
)
"""Linear model that every step starts from: a rotation of the plane times 0.7, so that $W x$ has norm 0.7."""

RESPONSES = {"BT": 2, "PL": 4}
SCALE = 1.5  # root mean square norm of a response: wide enough for the softmax to matter
RATES = {"BT": 3e-2, "PL": 2e-2}
POOL = 16384


@dataclass(frozen=True)
class Kind:
    """A configuration, and what is known of it before any training.

    Args:
        task: "BT" or "PL".
        blocks: blocks of the transformer.
        attention: "softmax" or "linear".
        heads: heads of each block, 4 features wide.
        hidden: hidden units of the feed-forward network (FFN); 0: none.
        known: "constructed", "bounded", "wide" or "no proof", in the words of the notebook.
    """

    task: str
    blocks: int
    attention: str
    heads: int
    hidden: int
    known: str

    @property
    def name(self) -> str:
        """The configuration in words; Bradley-Terry models have one block, which goes without saying."""
        depth = "" if self.task == "BT" else f"{self.blocks} block{'s' * (self.blocks > 1)}, "
        heads = f"{self.heads} head{'s' * (self.heads > 1)}"
        return f"{depth}{self.attention}, {heads}{', FFN' * (self.hidden > 0)}"

    @property
    def config(self) -> TransformerConfig:
        """Sizes of the transformer: stream of 16 features, heads of 4, d = 2."""
        return TransformerConfig(6, 2, 16, self.blocks, self.heads, 4, self.hidden, self.attention)


KINDS = (
    Kind("BT", 1, "softmax", 1, 0, "bounded"),
    Kind("BT", 1, "softmax", 2, 0, "constructed"),
    Kind("BT", 1, "softmax", 3, 0, "constructed"),
    Kind("BT", 1, "softmax", 1, 32, "wide"),
    Kind("BT", 1, "softmax", 2, 32, "constructed"),
    Kind("BT", 1, "linear", 1, 0, "bounded"),
    Kind("BT", 1, "linear", 3, 0, "bounded"),
    Kind("BT", 1, "linear", 3, 32, "wide"),
    Kind("PL", 3, "softmax", 3, 32, "constructed"),
    Kind("PL", 3, "softmax", 2, 32, "constructed"),
    Kind("PL", 3, "softmax", 1, 32, "constructed, wider"),
    Kind("PL", 3, "softmax", 3, 0, "no proof"),
    Kind("PL", 3, "linear", 3, 32, "wide"),
    Kind("PL", 2, "softmax", 3, 32, "wide"),
    Kind("PL", 1, "softmax", 3, 32, "no proof"),
    Kind("PL", 1, "softmax", 3, 0, "no proof"),
    Kind("PL", 1, "softmax", 1, 0, "bounded"),
    Kind("PL", 1, "linear", 3, 0, "bounded"),
)


@dataclass(frozen=True)
class Study:
    """Prompts to train and to test on, and how each task is trained. Dictionaries go by task, "BT" and "PL"."""

    tasks: dict[str, GradientStep]
    pools: dict[str, Examples]
    tests: dict[str, Examples]
    seeds: dict[str, list[int]]
    schedules: dict[str, Schedule]

    @property
    def bounds(self) -> dict[str, float]:
        """Least relative squared error on the test prompts of any one layer of linear attention without FFN."""
        return {task: linear_attention_bound(test) for task, test in self.tests.items()}

    def train(self, kind: Kind) -> Trained:
        """Models of one configuration from random weights, one for each seed of its task."""
        seeds = self.seeds[kind.task]
        models = [initial(kind.config, seed) for seed in seeds]
        return train(models, seeds, self.pools[kind.task], self.tests[kind.task], self.schedules[kind.task])


def study(models: dict[str, int], steps: dict[str, int], held_out: int, gap: float, seed: int) -> Study:
    """Draw the prompts of both tasks.

    Args:
        models: number of models of each configuration, by task.
        steps: training steps, by task.
        held_out: prompts to test on.
        gap: smallest difference of two rewards of a prompt; rewards lie in [0, 1].
        seed: seed of the prompts; model k of a configuration has the seed 100 seed + k.
    """
    generator = torch.Generator().manual_seed(seed)
    tasks = {task: GradientStep(W, N=N, gap=gap, scale=SCALE) for task, N in RESPONSES.items()}
    return Study(
        tasks,
        {task: step.sample(POOL, generator) for task, step in tasks.items()},
        {task: step.sample(held_out, generator) for task, step in tasks.items()},
        {task: [100 * seed + k for k in range(count)] for task, count in models.items()},
        {task: Schedule(count, batch=64, rate=RATES[task]) for task, count in steps.items()},
    )
