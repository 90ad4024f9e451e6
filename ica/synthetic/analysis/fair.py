r"""Which algorithm a model trained as stated runs: what rules explain of it, and models that imitate one.

Behind the page "mechanism". A rule explains a model up to one factor, since training asks for shorter
predictions than some rules give; what it leaves unexplained is a share of the model's mean squared norm.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from scipy import optimize
from torch import Tensor

from ica import checks, minimiser
from ica.synthetic.analysis import controls
from ica.synthetic.analysis.fair_rules import MEANS, UNITS, Descent, weighted_mean
from ica.synthetic.analysis.rules import Predictor, derivatives, double
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import SyntheticBatch, sample_batch
from ica.synthetic.task.tokens import tokens
from ica.synthetic.training import train
from ica.synthetic.training.evaluation import evaluation_prompts
from ica.transformer import Transformer

Target = Callable[[SyntheticBatch, Int[Tensor, " prefixes"]], Float[Tensor, "batch prefixes d"]]
STEPS, RATES = (1, 2, 5, 14, 50), (0.05, 0.1, 0.2, 0.5)
KNOTS = 10
WARM, FALL = 50, 0.3  # updates of rising learning rate; last share of the updates, of falling


def only(batch: SyntheticBatch, kept: Bool[Tensor, " batch"]) -> SyntheticBatch:
    """The prompts for which `kept` is true."""
    return SyntheticBatch(*(getattr(batch, field.name)[kept] for field in fields(batch)))


def solvable(batch: SyntheticBatch) -> SyntheticBatch:
    """The prompts whose loss over all their triplets has a minimiser."""
    return only(batch, minimiser.exists(batch.responses, batch.rewards, "stable"))


def prompts(
    config: RunConfig, n: int, generator: torch.Generator, few: int
) -> tuple[SyntheticBatch, SyntheticBatch, SyntheticBatch]:
    """The first n triplets of prompts to fit on, of those to judge on, and of the first `few` of these, in float64.

    Only those whose loss has a minimiser; 256 are drawn to fit on, and judged are the evaluation prompts.
    """
    own = sample_batch(256, config.N, config.d, generator, dtype=torch.float64, noise="own")
    fit_on, judged_on = (
        solvable(controls.cut(batch, n)) for batch in (own, double(evaluation_prompts(config)))
    )
    return fit_on, judged_on, double(judged_on, few)


@torch.no_grad()
def ask(
    predictors: Sequence[Predictor], batches: Mapping[str, SyntheticBatch]
) -> dict[str, Float[Tensor, "seeds batch d"]]:
    """What they predict on several batches, by name."""
    return {name: torch.stack([predict(batch) for predict in predictors]) for name, batch in batches.items()}


def factor(
    models: Float[Tensor, "seeds batch *more d"], rule: Float[Tensor, "batch *more d"]
) -> Float[Tensor, " seeds"]:
    """The number times which the rule is nearest to each model, least squares over all prompts."""
    flat = rule.flatten()
    return models.flatten(1) @ flat / flat.square().sum()


def unexplained(
    models: Float[Tensor, "seeds batch *more d"],
    rule: Float[Tensor, "batch *more d"],
    times: Float[Tensor, " seeds"] | None = None,
) -> Float[Tensor, "seeds batch"]:
    """Squared distance of each model from `times` (default 1) the rule, over the model's mean squared norm.

    Its mean over prompts is the share of the model that the rule leaves unexplained: 0 where the model is the
    rule, 1 for the rule 0.
    """
    times = torch.ones(len(models), dtype=rule.dtype) if times is None else times
    rest = models - times.view(-1, *(1,) * rule.ndim) * rule
    return rest.flatten(2).square().sum(-1) / models.flatten(2).square().sum(-1).mean(1, keepdim=True)


def _left(models: Float[Tensor, "seeds batch d"], rule: Float[Tensor, "batch d"]) -> float:
    return unexplained(models, rule, factor(models, rule)).mean().item()


def fitted_mean(models: Float[Tensor, "seeds batch d"], batch: SyntheticBatch, kind: str) -> float:
    """The sharpness at which the weighted mean, up to a factor, is nearest to what the models predict."""
    found = optimize.minimize_scalar(
        lambda sharpness: _left(models, weighted_mean(kind, sharpness)(batch)),
        bounds=(0.0, 40.0),
        method="bounded",
    )
    return float(found.x)


def fitted_sum(models: Float[Tensor, "seeds batch d"], batch: SyntheticBatch) -> Predictor:
    """The sum of responses, weighted by a function of the reward, that is nearest to what the models predict.

    The function is linear between `KNOTS` + 1 values at equal distances over [0, 1], which least squares fit.
    """
    places = torch.arange(KNOTS + 1, dtype=torch.float64)

    def features(given: SyntheticBatch) -> Float[Tensor, "batch knots d"]:
        hats = (1 - (given.rewards.unsqueeze(-1) * KNOTS - places).abs()).clamp(min=0)
        return torch.einsum("bnk,bnd->bkd", hats, given.responses)

    columns = features(batch).mT.flatten(0, 1)
    found = torch.linalg.lstsq(columns, models.mean(0).flatten().unsqueeze(-1)).solution[:, 0]
    return lambda given: torch.einsum("bkd,k->bd", features(given), found)


def fitted_descent(
    models: Float[Tensor, "seeds batch d"],
    batch: SyntheticBatch,
    steps: Sequence[int] = STEPS,
    units: Sequence[str] = UNITS,
) -> Descent:
    """The GD of these steps and units and of `RATES` that is, up to a factor, nearest to the predictions."""
    all_seen = torch.tensor([batch.rewards.shape[1]])
    best = (torch.inf, None)
    for unit, rate in itertools.product(units, RATES):
        path = Descent(max(steps), rate, unit).path(batch, all_seen)[:, :, 0]
        best = min(
            [best, *((_left(models, path[k]), Descent(k, rate, unit)) for k in steps)], key=lambda a: a[0]
        )
    return best[1]


def fitted_rules(
    models: Float[Tensor, "seeds batch d"], batch: SyntheticBatch
) -> tuple[dict[str, Predictor], dict[str, float]]:
    """Named rules that are fitted to what models predict on these prompts, and the sharpness of the means."""
    n = batch.rewards.shape[1]
    sharp = {kind: fitted_mean(models, batch, kind) for kind in MEANS}
    found: dict[str, Predictor] = {
        f"{kind} mean": weighted_mean(kind, value) for kind, value in sharp.items()
    }
    found["free sum"] = fitted_sum(models, batch)
    found["GD, best fit"] = fitted_descent(models, batch)
    found["GD, n steps"] = fitted_descent(models, batch, (n,), ("stated",))
    return found, sharp


@dataclass(frozen=True)
class Answers:
    """What models, or one rule, predict on prompts to fit on and on others, and Jacobians on a few of these.

    The responses in the Jacobians are best first, as `rules.derivatives` gives them; None if not asked for.
    """

    own: Float[Tensor, "seeds fitted d"]
    test: Float[Tensor, "seeds batch d"]
    slopes: Float[Tensor, "seeds few n d d"] | None

    @classmethod
    def of(
        cls,
        predictors: Sequence[Predictor],
        own: SyntheticBatch,
        test: SyntheticBatch,
        few: SyntheticBatch,
        smooth: bool = True,
    ) -> "Answers":
        """Ask them; without `smooth` for no Jacobians."""
        found = ask(predictors, {"own": own, "test": test}).values()
        slopes = [derivatives(predict, few, direction=False)[0] for predict in predictors] if smooth else []
        return cls(*found, torch.stack(slopes) if smooth else None)

    @property
    def weights(self) -> Float[Tensor, "seeds few n"]:
        r"""Weight $w_i = \operatorname{tr}(J_i) / d$ of each response, $J_i$ the derivative in it."""
        return self.slopes.diagonal(dim1=-2, dim2=-1).mean(-1)

    @property
    def weights_share(self) -> Float[Tensor, "seeds few"]:
        r"""Share of the squared derivative, $\sum_i \lVert J_i \rVert^2$, that $w_i I$ in place of $J_i$ has.

        1 where the prediction is a sum of the responses with weights that do not depend on them.
        """
        own = self.weights.square().sum(-1) * self.slopes.shape[-1]
        return own / self.slopes.square().sum((-1, -2, -3))

    def distances(self, rule: "Answers") -> dict[str, Float[Tensor, "seeds prompts"]]:
        """The share of each model that a rule leaves unexplained: of its prediction, weights and Jacobian.

        Up to a factor for each model, of the prediction from the prompts to fit on, else from these prompts;
        "as it stands" is the prediction without a factor.
        """
        times = factor(self.own, rule.own[0])
        found = {"as it stands": unexplained(self.test, rule.test[0])}
        found["prediction"] = unexplained(self.test, rule.test[0], times)
        if rule.slopes is not None:
            mine, other = self.weights.unsqueeze(-1), rule.weights[0].unsqueeze(-1)
            found["weights"] = unexplained(mine, other, factor(mine, other))
            mine, other = self.slopes.flatten(2, 3), rule.slopes[0].flatten(1, 2)
            found["Jacobian"] = unexplained(mine, other, factor(mine, other))
        return found


def by_reward(
    found: Float[Tensor, "seeds batch n"], rewards: Float[Tensor, "batch n"], parts: int
) -> Float[Tensor, "seeds parts"]:
    """Mean weight of the responses whose reward lies in each of so many equal parts of [0, 1].

    Raises:
        ValueError: a part in which no reward lies.
    """
    place = (rewards * parts).long().clamp(0, parts - 1).flatten()
    count = torch.bincount(place, minlength=parts)
    if not count.all():
        raise ValueError(
            f"rewards must lie in all {parts} parts, none does in part {int((count == 0).nonzero()[0])}"
        )
    total = torch.zeros(len(found), parts, dtype=found.dtype).index_add(1, place, found.flatten(1))
    return total / count


def moved(
    before: Float[Tensor, "*seeds batch d"], after: Float[Tensor, "*seeds batch d"]
) -> Float[Tensor, "*seeds batch"]:
    """Squared shift of each prediction over the mean squared norm of those before."""
    return (after - before).square().sum(-1) / before.square().sum(-1).mean(-1, keepdim=True)


def imitate(
    config: RunConfig, seeds: tuple[int, ...], target: Target, least: int = 2
) -> tuple[list[Transformer], Float[Tensor, "updates seeds"]]:
    """Models trained to give a rule's predictions after n = `least` to N triplets, and each update's losses.

    Architecture, prompts and optimiser are those of runs. The loss is the squared error over the rule's mean
    square; the learning rate rises to `config.rate` over `WARM` updates and falls to 0 over the share `FALL`.

    Raises:
        ValueError: tokens that are not one a triplet.
    """
    checks.one_of("form", config.form, ("triplet",))
    state, run = train.start(config, seeds), train.forward(config)
    seen, losses = torch.arange(least, config.N + 1), []
    for step in range(config.steps):
        prompts = [train.prompts_of(config, seed, step) for seed in seeds]
        wanted = torch.stack([target(batch, seen) for batch in prompts])
        inputs = torch.stack([tokens(batch, config.form) for batch in prompts])
        given = {name: tensor.requires_grad_(True) for name, tensor in state.weights.items()}
        error = (run(given, inputs)[:, :, seen - 1] - wanted).square().flatten(1).mean(1)
        loss = error / wanted.square().flatten(1).mean(1)
        gradients = torch.autograd.grad(loss.sum(), list(given.values()))
        for tensor in state.weights.values():
            tensor.requires_grad_(False)
        left = (config.steps - step) / (FALL * config.steps)
        rate = config.rate * min(1.0, (step + 1) / WARM, left)
        train.adam_(state, dict(zip(given, gradients, strict=True)), rate)
        state.step += 1
        losses.append(loss.detach())
    return train.models(config, state), torch.stack(losses)
