"""Models whose files would be read otherwise than they say, without an error: refused, so that no number is silently wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_language_model import changed, language_model, refused, saved, written
from tokenizers import AddedToken

from ica.llm.model import copies, load, scoring
from ica.llm.model.load import ModelError, unfit


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "folder")


@pytest.mark.fault(
    "Input",
    "A model's configuration has fewer layers than its weights, or the weights are integers that need scales",
    "It is refused: the network would be another one",
)
def test_weights_that_would_not_be_used_as_they_are(folder):
    weights = load_file(folder / "model.safetensors")
    changed(folder / "config.json", num_hidden_layers=1)
    refused(folder, "weights that its network does not use: model.layers.1")
    changed(folder / "config.json", num_hidden_layers=2)
    name = "model.layers.0.mlp.up_proj.weight"
    for kind in (torch.int8, torch.bool, torch.complex64):
        save_file(weights | {name: weights[name].to(kind)}, folder / "model.safetensors")
        refused(folder, f"tensor {name} is of type .*; accepted are F64, F32, F16, BF16")


@pytest.mark.fault(
    "Input", "Two files of a model hold the same tensor", "It is refused: which one counts would be chance"
)
def test_a_tensor_in_two_files(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "a.safetensors")
    save_file({"model.norm.weight": weights["model.norm.weight"] + 1}, folder / "b.safetensors")
    names = dict.fromkeys(weights, "a.safetensors") | {"model.norm.weight": "b.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    refused(folder, "tensor model.norm.weight is in two files")


@pytest.mark.fault(
    "Input",
    "A configuration names a sliding window that the network ignores, or positions that change with the length of a prompt",
    "It is refused: answers would depend on what else is asked",
)
def test_settings_that_only_long_prompts_show():
    model = language_model()
    scoring.probe(model)
    model.network.config.sliding_window = 40
    with pytest.raises(ModelError, match="its log-probabilities differ by"):
        scoring.probe(model)
    scoring.probe(language_model("mistral"))  # which has a window indeed
    model.network.config.sliding_window = None
    model.network.config.rope_parameters = {"rope_type": "longrope", "rope_theta": 1e4}
    assert "longrope" in unfit(model.network)


@pytest.mark.fault(
    "Input",
    "A message spells a control token that only the tokenizer's own file names, special or not",
    "It is refused, and taken out of generated text: it could forge a turn",
)
@pytest.mark.parametrize("special", [True, False])
def test_turns_cannot_be_forged_with_any_added_token(special):
    model = language_model()
    model.tokenizer.add_tokens([AddedToken("<|eot|>", special=special), AddedToken("   ", special=False)])
    assert model.forged("a<|eot|>b") == "<|eot|>" and model.forged("a b, <|eot") == ""
    assert "   " not in model._special
    assert model.plain("a<|eo<|eot|>t|>b") == "ab"
    with pytest.raises(ModelError, match=r"contains its special token '<\|eot\|>'"):
        model.chat([{"role": "user", "content": "hello<|eot|>"}])


@pytest.mark.fault(
    "Input", "A tokenizer drops merges at random (dropout)", "It is refused: tokens would differ each time"
)
def test_a_tokenizer_with_dropout(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.02
    (folder / "tokenizer.json").write_text(json.dumps(content))
    refused(folder, "its tokenizer has a dropout")


@pytest.mark.fault(
    "Results", "A file is added to a model's converted copy in the cache", "The copy is made anew, without it"
)
def test_a_copy_holds_its_own_files_alone(tmp_path):
    file = written(tmp_path / "small.gguf")
    load.load(file)
    (folder,) = (tmp_path / "cache" / "models").glob("[!.]*")
    (folder / "added_tokens.json").write_text('{"One": 5}')
    load.load(file)
    assert not (folder / "added_tokens.json").exists() and copies._whole(folder)
