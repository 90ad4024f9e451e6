"""Training on the synthetic task: several seeds of one configuration as one stacked program, resumable bit for bit."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from ica import checks
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import SyntheticBatch, sample_batch
from ica.synthetic.task.tokens import loss, tokens
from ica.synthetic.training import checkpoints
from ica.transformer import Transformer, initial

BETAS, EPSILON = (0.9, 0.999), 1e-8
Weights = dict[str, Float[Tensor, "seeds ..."]]


class TrainingError(ValueError):
    """Training cannot go on; the message says at which update, for which seed, and what is kept."""


@dataclass
class State:
    """Weights and Adam's moments of all seeds after `step` updates, with the loss of each update and the looks so far."""

    weights: Weights
    first: Weights
    second: Weights
    step: int
    losses: list[list[float]]
    looks: list[dict] = field(default_factory=list)

    def to(self, device: str) -> "State":
        """The same state on a device."""
        moved = {
            group: {name: tensor.to(device) for name, tensor in getattr(self, group).items()}
            for group in ("weights", "first", "second")
        }
        return replace(self, **moved)

    def tensors(self) -> dict[str, Tensor]:
        """One flat dictionary, for a checkpoint."""
        groups = {"weights": self.weights, "first": self.first, "second": self.second}
        return {
            f"{group}/{name}": tensor for group, named in groups.items() for name, tensor in named.items()
        }


def prompts_of(config: RunConfig, seed: int, step: int) -> SyntheticBatch:
    """The prompts of one update: a function of seed and update alone, so that a resumed run sees the same."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step + 1)
    return sample_batch(config.batch, config.N, config.d, generator, config.critic, noise=config.noise)


def start(config: RunConfig, seeds: tuple[int, ...]) -> State:
    """The state before the first update."""
    weights, _ = stack_module_state([initial(config.transformer(), seed) for seed in seeds])
    weights = {name: tensor.detach() for name, tensor in weights.items()}
    zeros = [{name: torch.zeros_like(tensor) for name, tensor in weights.items()} for _ in range(2)]
    return State(weights, *zeros, 0, [])


def resume(config: RunConfig, seeds: tuple[int, ...], folder: Path) -> State:
    """The state of the last whole checkpoint in the folder, or the start where there is none.

    Raises:
        CheckpointError: the checkpoint is of another run.
    """
    found = checkpoints.last(folder, config, seeds)
    if found is None:
        return start(config, seeds)
    tensors, header = found
    groups: dict[str, Weights] = {"weights": {}, "first": {}, "second": {}}
    for key, tensor in tensors.items():
        group, _, name = key.partition("/")
        groups[group][name] = tensor
    return State(**groups, step=header["step"], losses=header["losses"], looks=header["looks"])


def forward(config: RunConfig, products: str = "float32") -> Callable[[Weights, Tensor], Tensor]:
    """Outputs of all seeds, each model on its own tokens, as one function of the stacked weights.

    With `products` "bfloat16" matrix products take and give that type, norms, softmax and the residual stream float32.
    """
    skeleton = Transformer(config.transformer())

    def one(weights: Weights, inputs: Tensor) -> Tensor:
        return functional_call(skeleton, weights, (inputs,))

    many = vmap(one)

    def run(weights: Weights, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=products == "bfloat16"):
            if len(inputs) > 1:
                return many(weights, inputs).float()
            alone = {name: tensor[0] for name, tensor in weights.items()}  # faster than a stack of one
            return one(alone, inputs[0]).float().unsqueeze(0)

    return run


def losses_of(
    outputs: Float[Tensor, "seeds batch tokens d"], prompts: list[SyntheticBatch], config: RunConfig
):
    """The training loss of each seed on its own prompts."""
    return torch.stack([loss(out, batch, config) for out, batch in zip(outputs, prompts, strict=True)])


@torch.no_grad()
def adam_(state: State, gradients: Weights, rate: float) -> None:
    """One Adam update in place (Kingma and Ba 2015, algorithm 1), every seed by its own gradient."""
    t = state.step + 1
    scale = rate * (1 - BETAS[1] ** t) ** 0.5 / (1 - BETAS[0] ** t)
    epsilon = EPSILON * (1 - BETAS[1] ** t) ** 0.5
    for name, gradient in gradients.items():
        first = state.first[name].mul_(BETAS[0]).add_(gradient, alpha=1 - BETAS[0])
        second = state.second[name].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        state.weights[name].addcdiv_(first, second.sqrt().add_(epsilon), value=-scale)


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Collects SIGTERM, SIGINT and SIGHUP, so that the update under way ends and is saved first."""
    seen: list[int] = []
    every = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    numbers = [number for number in every if signal.getsignal(number) is not signal.SIG_IGN]  # as by nohup
    before = {number: signal.signal(number, lambda n, _: seen.append(n)) for number in numbers}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _update(state: State, run: Callable, config: RunConfig, seeds: tuple[int, ...], folder: Path) -> None:
    device = next(iter(state.weights.values())).device
    prompts = [prompts_of(config, seed, state.step).to(device) for seed in seeds]
    weights = {name: tensor.requires_grad_(True) for name, tensor in state.weights.items()}
    outputs = run(weights, torch.stack([tokens(batch, config.form) for batch in prompts]))
    _refuse_bad(outputs.detach().flatten(1).isfinite().all(dim=1), seeds, state.step, folder)
    losses = losses_of(outputs, prompts, config)
    gradients = torch.autograd.grad(losses.sum(), list(weights.values()))
    for tensor in state.weights.values():
        tensor.requires_grad_(False)
    adam_(state, dict(zip(weights, gradients, strict=True)), config.rate)
    state.step += 1
    state.losses.append(losses.tolist())


def train(
    config: RunConfig,
    seeds: tuple[int, ...],
    folder: Path,
    *,
    every: int = 100,
    look: Callable[[int, Weights], dict] | None = None,
    tell: Callable[[str], None] | None = None,
    device: str = "cpu",
) -> State:
    """Train all seeds to `config.steps` updates, from the last checkpoint in `folder` if there is one.

    Args:
        every: updates between checkpoints; the last update is always saved.
        look: called with the number of updates done and the weights, before the first update, after every `every` and after the
            last; what it gives, as JSON holds it, is kept in the checkpoints and in `State.looks`.
        tell: called with how far it is, as in "50/300", where it starts or goes on and at each checkpoint.
        device: where the weights live; prompts are always drawn on the CPU, so that they are the same everywhere.

    Raises:
        TrainingError: a model that gives values that are not finite; the last checkpoint stays.
        CheckpointError: a checkpoint that is of another run, or cannot be written.
        KeyboardInterrupt: asked to stop by SIGINT, SIGTERM or SIGHUP; the updates done are saved.
    """
    checks.whole("every", every, 1)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be distinct and at least one, got {seeds}")
    state, begun = resume(config, seeds, folder).to(device), time.time()
    run = forward(config, config.products)
    tell = tell or (lambda progress: None)
    tell(f"{state.step}/{config.steps}")
    if look and state.step == 0:
        state.looks.append(look(0, state.weights))
    with _asked_to_stop() as asked:
        while state.step < config.steps:
            _update(state, run, config, seeds, folder)
            due = state.step % every == 0 or state.step == config.steps
            if look and due:
                state.looks.append(look(state.step, state.weights))
            if asked or due:
                header = {"config": config.as_dict(), "seeds": list(seeds), "step": state.step}
                header |= {"losses": state.losses, "looks": state.looks}
                checkpoints.save(folder, state.tensors(), header)
                tell(f"{state.step}/{config.steps}")
                _progress(config, state, begun)
            if asked:
                name = signal.Signals(asked[0]).name
                raise KeyboardInterrupt(f"signal {name} after update {state.step}, which is saved")
    return state


def _refuse_bad(fine: Bool[Tensor, " seeds"], seeds: tuple[int, ...], step: int, folder: Path) -> None:
    if fine.all():
        return
    found = checkpoints.paths(folder)
    kept = f"the last checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
    seed = seeds[fine.tolist().index(False)]
    raise TrainingError(
        f"the model of seed {seed} gives values that are not finite at update {step + 1}; {kept}"
    )


def _progress(config: RunConfig, state: State, begun: float) -> None:
    """One changing line on a terminal, nothing in a log."""
    if sys.stderr.isatty():
        mean = sum(state.losses[-1]) / len(state.losses[-1])
        line = f"{config.hash()}  {state.step}/{config.steps}  loss {mean:.4f}  {time.time() - begun:.0f} s"
        print(f"\r\x1b[K{line}", end="\n" if state.step == config.steps else "", file=sys.stderr, flush=True)


def models(config: RunConfig, state: State) -> list[Transformer]:
    """The trained transformers, one for each seed."""
    built = []
    for k in range(len(next(iter(state.weights.values())))):
        model = Transformer(config.transformer())
        model.load_state_dict({name: tensor[k] for name, tensor in state.weights.items()})
        built.append(model.eval())
    return built
