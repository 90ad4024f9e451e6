"""The whole path in seconds, for the page: a tiny model with random weights is taught and asked as the stored ones are, twice.

Its answers say nothing about language models; that both runs leave the same file says that a run repeats bit for bit.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ica.llm.model.load import LanguageModel
from ica.llm.taught import lessons, run
from ica.llm.taught.settings import Arm, Recipe

WIDTH, LAYERS = 64, 2


def tiny(base: LanguageModel, seed: int) -> LanguageModel:
    """A model of two layers with random weights that reads the tokens of another one."""
    sizes = {"vocab_size": base.network.config.vocab_size, "max_position_embeddings": base.longest}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True}
    with _seeded(seed):
        network = LlamaForCausalLM(
            LlamaConfig(
                **sizes, **heads, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS
            )
        )
    network.generation_config = base.network.generation_config
    return replace(base, name="tiny", hash=f"tiny-{seed}-{base.hash}", network=network.eval())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's global generator at a seed, and afterwards as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def once(base: LanguageModel, arm: Arm, seed: int, recipe: Recipe, count: int) -> dict:
    """What a run of the tiny model leaves, without where it came from: it is made in a folder that is gone afterwards.

    Args:
        count: items of each condition and set that it is asked.
    """
    (asked, source), few = run.sets(count), {}
    for name, some in asked.items():
        kinds = [
            [item for item in some if item.condition == condition][:count]
            for condition in ("ambiguous", "disambiguated")
        ]
        few[name] = [item for kind in kinds for item in kind]
    model, first = tiny(base, seed), lessons.first_stage(arm, seed, recipe)
    with tempfile.TemporaryDirectory() as folder:
        path = run.perform(model, arm, seed, recipe, (few, source), Path(folder), lambda text: None)
        content = json.loads(path.read_text(encoding="utf-8"))
    shutil.rmtree(run.place(first, model))  # so that the next one teaches it again
    del content["provenance"]
    return content
