"""Tiny language models with random weights, and a tokenizer of bytes with a few merges, for the tests."""

import json
from pathlib import Path

import gguf
import pytest
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
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ica.llm.model.load import LanguageModel, ModelError, load

MERGES = [("Ġ", "A"), ("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("e", "r"), ("i", "n"), ("in", "g")]
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}
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


def saved(folder: Path, kind: str = "llama") -> Path:
    """A Hugging Face folder with a small model."""
    network(kind).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def qwen() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 258 + len(MERGES),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    return Qwen2ForCausalLM(
        Qwen2Config(**sizes, **heads, tie_word_embeddings=True, initializer_range=0.3)
    ).eval()


def written(path: Path, architecture: str = "qwen2") -> Path:
    """A GGUF file with the small Qwen2 in it."""
    made, words = qwen(), tokenizer()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(made.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    tokens = words.convert_ids_to_tokens(range(len(words)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(words.chat_template)
    for name, tensor in made.state_dict().items():
        if name == "lm_head.weight":
            continue
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refused(source: str | Path, said: str) -> None:
    """Loading it raises one printable line that says this (a pattern)."""
    with pytest.raises(ModelError, match=said) as caught:
        load(source)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


def changed(file: Path, **fields: object) -> None:
    """Set fields of a JSON file."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | fields))
