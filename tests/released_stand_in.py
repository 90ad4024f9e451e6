"""A stand-in for a checkout of the released code: its files and names, with the least behind them that a step needs.

What it computes is what the released code is taken to compute; with RELEASED=folder in the environment the tests take that checkout too.
"""

from pathlib import Path

MODELS = """
import sklearn.svm, xgboost
import torch
from sklearn.linear_model import Lasso
from torch import nn
from transformers import GPT2Config, GPT2Model


class Model(nn.Module):
    def __init__(self, conf):
        super().__init__()
        sizes = {"n_positions": 3 * conf.n_positions, "n_embd": conf.n_embd, "n_layer": conf.n_layer}
        drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        self._read_in = nn.Linear(conf.n_dims, conf.n_embd)
        self._backbone = GPT2Model(GPT2Config(**sizes, **drops, n_head=conf.n_head, use_cache=False))
        self._read_out = nn.Linear(conf.n_embd, conf.n_dims)

    def forward(self, xs, ys, rs):
        rewards = torch.cat([rs, rs.new_zeros(*rs.shape[:2], xs.shape[-1] - 1)], dim=-1)
        inputs = self._read_in(torch.stack([xs, ys, rewards], dim=2).flatten(1, 2))
        return self._read_out(self._backbone(inputs_embeds=inputs).last_hidden_state)[:, ::3]


def build_model(conf):
    return Model(conf)
"""
TASKS = """
import torch


def pl_loss_single(prediction, ys, rs):
    scores = torch.cosine_similarity(prediction.unsqueeze(0), ys[rs.flatten().argsort(descending=True)], dim=1)
    return sum(scores[i:].logsumexp(0) - scores[i] for i in range(len(scores)))


def pl_loss_mean_batch(predictions, ys, rs, good):
    losses = [[pl_loss_single(p[n], y[:n], r[:n]) for n in range(2, len(p))] for p, y, r in zip(predictions, ys, rs)]
    return sum(sum(one) / len(one) for one in losses) / len(losses)


class Task:
    def __init__(self, d, batch):
        self.W = torch.randn(batch, d, d)

    def evaluate(self, xs, noise, rs):
        return xs @ self.W, xs @ self.W * rs + noise * (1 - rs)

    def get_training_metric(self):
        return pl_loss_mean_batch


def get_task_sampler(name, d, batch):
    return lambda: Task(d, batch)
"""
SAMPLERS = """
import torch


class Sampler:
    def __init__(self, d):
        self.d = d

    def sample_xs(self, points, batch, d):
        xs = torch.randn(batch, 1, self.d).expand(-1, points, -1)
        return xs, torch.randn(batch, 1, self.d).expand(-1, points, -1), torch.rand(batch, points, 1)


def get_data_sampler(name, n_dims):
    return Sampler(n_dims)
"""
TRAIN = """
import wandb
from curriculum import NOTHING
from models import build_model
from schema import schema


def train_step(model, xs, good, ys, rs, optimizer, loss_func):
    optimizer.zero_grad()
    loss = loss_func(model(xs, ys, rs), ys, rs, good)
    loss.backward()
    optimizer.step()
    return loss.item()
"""
SCHEMA = (
    "from funcy import merge\nfrom quinine import required, tinteger\n\nschema = merge(tinteger, required)\n"
)
FILES = {"models": MODELS, "tasks": TASKS, "samplers": SAMPLERS, "train": TRAIN, "schema": SCHEMA}


def write(folder: Path) -> Path:
    """The checkout, in the folder."""
    place = folder / "synthetic_experiment"
    place.mkdir(parents=True)
    for name, source in (FILES | {"curriculum": "NOTHING = None\n"}).items():
        (place / f"{name}.py").write_text(source)
    return folder
