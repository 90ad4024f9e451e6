"""Tiny language models with random weights, and a tokenizer of bytes with a few merges, for the tests."""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from ica.llm.model.load import LanguageModel

MERGES = [("Ġ", "A"), ("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("e", "r"), ("i", "n"), ("in", "g")]
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
KINDS = ("llama", "gpt2", "gemma3", "mistral")


def tokenizer(start: bool = False, chat: bool = True) -> PreTrainedTokenizerFast:
    """Bytes and a few merges; `start`: sequences begin with <s>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet, *map("".join, MERGES)])}
    core = Tokenizer(models.BPE(vocabulary, MERGES))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    if start:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    made.chat_template = TEMPLATE if chat else None
    return made


def network(kind: str, places: int = 256, seed: int = 0):
    """A model of two layers; mistral has a sliding window of 8 tokens, gemma3 in one layer of the two."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 2 + 256 + len(MERGES), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    llama = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": places,
        "initializer_range": 0.3,
    }
    if kind == "llama":
        made = LlamaForCausalLM(LlamaConfig(**sizes, **llama, tie_word_embeddings=True))
    elif kind == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": places, "initializer_range": 0.3}
        made = GPT2LMHeadModel(GPT2Config(**sizes, **shape))
    elif kind == "mistral":
        made = MistralForCausalLM(MistralConfig(**sizes, **llama, sliding_window=8))
    else:
        layers = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
        made = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, **llama, **layers))
    made.generation_config.eos_token_id = list(range(1, sizes["vocab_size"], 9))  # so that some answers end
    return made.eval().requires_grad_(False)


def language_model(
    kind: str = "llama", start: bool = False, chat: bool = True, places: int = 256
) -> LanguageModel:
    return LanguageModel(f"small {kind}", "0" * 64, network(kind, places), tokenizer(start, chat))
