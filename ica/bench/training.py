"""A training step against that of the released code, on prompts of one size: ours with its tokens, and with one token a triplet.

A step is all of an update: prompts are drawn, the loss and its gradient computed, Adam's update made.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ica.bench.timing import Case, Way
from ica.synthetic.task.config import RunConfig
from ica.synthetic.task.data import SyntheticBatch
from ica.synthetic.task.tokens import loss, tokens
from ica.synthetic.training import cost, train
from ica.transformer import Transformer, initial

# Name -> configuration, and how many times faster than the released step ours shall be, by the form of its tokens.
SIZES = {
    "released size": (RunConfig(), {"interleaved": 1.5, "triplet": 5.0}),
    "small": (RunConfig(layers=4, width=36, hidden=144, batch=32), {}),
}
FORMS = {"interleaved": "ours, interleaved tokens", "triplet": "ours, one token a triplet"}
COMPARED = 8  # prompts on which both compute before they are timed


def cases(code: SimpleNamespace, sizes: dict = SIZES, device: str = "cpu") -> Iterator[Case]:
    """One case a size; the last way is the released step.

    Args:
        code: the checkout's modules (`released.modules`).
        sizes: as `SIZES`.
    """
    for name, (config, goals) in sizes.items():
        forms = {form: replace(config, form=form) for form in FORMS}
        counted = {form: cost.training(one) / one.steps for form, one in forms.items()}
        ways = [
            Way(label, ours(forms[form], device), 1, counted[form], goals.get(form, 0.0))
            for form, label in FORMS.items()
        ]
        theirs = Way("released code", released(code, config, device), 1, counted["interleaved"])
        yield Case(
            f"{name}: {config.layers} blocks, width {config.width}, {config.batch} prompts",
            "training step",
            (*ways, theirs),
            lambda config=config: difference(code, config),
            1e-3,
            device=device,
            repeats=3 if config.width > 64 else 0,
        )


def ours(config: RunConfig, device: str):
    """A function that does our next update of one seed."""
    state, run = train.start(config, (0,)).to(device), train.forward(config)
    # the update itself, without checkpoints
    return lambda: train._update(state, run, config, (0,), Path("."))


def build(code: SimpleNamespace, config: RunConfig) -> nn.Module:
    """The released model of that size."""
    sizes = {"n_dims": config.d, "n_positions": config.N, "n_embd": config.width}
    return code.models.build_model(
        SimpleNamespace(family="gpt2", **sizes, n_layer=config.layers, n_head=config.heads)
    )


def released(code: SimpleNamespace, config: RunConfig, device: str):
    """A function that does the released code's next update: its samplers, task, step, with Adam as it makes it."""
    model = build(code, config).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=config.rate)
    sampler = code.samplers.get_data_sampler("mixed_gaussian", n_dims=config.d)
    draw = code.tasks.get_task_sampler("mixed_linear_alignment", config.d, config.batch)

    def step() -> None:
        xs, noise, rs = sampler.sample_xs(config.N, config.batch, config.d)
        task = draw()
        good, ys = task.evaluate(xs, noise, rs)
        given = (tensor.to(device) for tensor in (xs, good, ys, rs))
        code.train.train_step(model, *given, optimiser, task.get_training_metric())

    return step


def difference(code: SimpleNamespace, config: RunConfig) -> float:
    """Largest relative difference of outputs, losses and a gradient of both, for the same weights and prompts.

    The released network is given our exact GELU for this (it has the tanh approximation). With one token a triplet the tokens, and so
    the outputs, are others: there the released loss is taken of our outputs.
    """
    batch = train.prompts_of(replace(config, batch=min(COMPARED, config.batch)), 0, 0)
    one = replace(config, form="interleaved")
    model, theirs = initial(one.transformer(), 0), build(code, config)
    copy_weights(model, theirs)
    for block in theirs._backbone.h:
        block.mlp.act = nn.GELU()
    query = batch.query.unsqueeze(1).expand_as(batch.responses)
    outputs, other = (
        model(tokens(batch, one.form)),
        theirs(query, batch.responses, batch.rewards.unsqueeze(-1)),
    )
    pairs = [(outputs[:, ::3], other), (loss(outputs, batch, one), released_loss(code, other, batch))]
    pairs.append(
        tuple(
            torch.autograd.grad(value, weight)[0]
            for value, weight in zip(pairs[1], (model.embed.weight, theirs._read_in.weight), strict=True)
        )
    )
    flat = replace(config, form="triplet")
    outputs = initial(flat.transformer(), 0)(tokens(batch, flat.form))
    # the released loss takes row n for the prediction after n triplets; ours is read at the last of them
    rows = torch.cat([outputs[:, :1], outputs], dim=1)
    pairs.append((loss(outputs, batch, flat), released_loss(code, rows, batch)))
    return max(float((a - b).detach().abs().max() / b.detach().abs().max()) for a, b in pairs)


def released_loss(code: SimpleNamespace, outputs: Tensor, batch: SyntheticBatch) -> Tensor:
    """The released loss of predictions after 0, 1, 2 ... triplets; it is over those from 2 on."""
    return code.tasks.pl_loss_mean_batch(outputs, batch.responses, batch.rewards.unsqueeze(-1), batch.good)


@torch.no_grad()
def copy_weights(model: Transformer, theirs: nn.Module) -> None:
    """Give the released network our weights; biases that ours has not become 0."""

    def put(layer: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
        layer.weight.copy_(weight)
        layer.bias.zero_() if bias is None else layer.bias.copy_(bias)

    put(theirs._read_in, model.embed.weight, model.embed.bias)
    theirs._backbone.wpe.weight.copy_(model.positions.weight)
    for block, other in zip(model.blocks, theirs._backbone.h, strict=True):
        attention, network = block.attention, block.feed_forward
        maps = [layer.weight.T for layer in (attention.W_Q, attention.W_K, attention.W_V)]
        put(other.attn.c_attn, torch.cat(maps, dim=1))
        put(other.attn.c_proj, attention.W_O.weight.T)
        put(other.mlp.c_fc, network.W_1.weight.T, network.W_1.bias)
        put(other.mlp.c_proj, network.W_2.weight.T, network.W_2.bias)
        for norm, layer in ((block.norm_1, other.ln_1), (block.norm_2, other.ln_2)):
            put(layer, norm.weight, norm.bias)
    put(theirs._backbone.ln_f, model.norm.weight, model.norm.bias)
    put(theirs._read_out, model.readout.weight)
