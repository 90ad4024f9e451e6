"""Models that are damaged, hostile, too large or of unknown kinds: refused by name in one line, and nothing of them is run."""

import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_language_model import changed, language_model, refused, saved, written

from ica.llm.model import folders, load, networks
from ica.llm.model.load import ModelError
from ica.llm.protocol import workflow

INDEX = "model.safetensors.index.json"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "folder")


@pytest.fixture
def alone(monkeypatch):
    """No connection: whoever tries one fails the test, in whatever thread."""
    tried = []

    def refuse(*args):
        tried.append(args)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not tried


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


# Folders


@pytest.mark.fault(
    "Input",
    "A model folder whose index names pickled weights, a subfolder, or a file outside",
    "It is refused by that name before anything is opened; nothing is unpickled",
)
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("pytorch_model.bin", "names 'pytorch_model.bin'; accepted are .safetensors files that lie directly"),
        ("sub/w.safetensors", "names 'sub/w.safetensors'; accepted"),
        ("../other/w.safetensors", r"names '\.\./other/w.safetensors'; accepted"),
        ("{tmp}/other/w.safetensors", r"names '/.*other/w.safetensors'; accepted"),
        ("none.safetensors", "none.safetensors is missing, which model.safetensors.index.json names"),
        (7, "its weight_map must give names of files"),
    ],
)
def test_weights_elsewhere_are_refused(target, said, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("unpickled"))
    weights = folder / "model.safetensors"
    for place in (folder / "sub", tmp_path / "other"):
        place.mkdir()
        (place / "w.safetensors").write_bytes(weights.read_bytes())
    names = list(load_file(weights))
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    target = target.format(tmp=tmp_path) if isinstance(target, str) else target
    changed(folder / INDEX, metadata={}, weight_map=dict.fromkeys(names, target))
    refused(folder, said)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.fault(
    "Input",
    "A model folder that says its weights have another name, or are an adapter of a model on the hub",
    "It is refused by name; no file elsewhere is opened, no connection tried",
)
@pytest.mark.parametrize(
    ("file", "fields", "said"),
    [
        (
            "config.json",
            {"transformers_weights": "adapter_model.bin"},
            r"transformers_weights \(adapter_model",
        ),
        ("adapter_config.json", {"base_model_name_or_path": "owner/name"}, "holds an adapter"),
        ("tokenizer_config.json", {"init_inputs": ["/etc/passwd"]}, "has init_inputs"),
    ],
)
def test_other_names_of_weights_are_refused(file, fields, said, folder, alone):
    changed(folder / file, **fields)
    refused(folder, said)


@pytest.mark.fault(
    "Input",
    "A model folder with links to files outside, pipes or folders in place of files",
    "It is refused by the file's name",
)
def test_files_that_are_none_of_the_folder(folder, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    link = folder / "chat_template.jinja"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "secret.txt")
    refused(folder, "chat_template.jinja is a link to a file outside the folder")
    link.unlink()
    os.mkfifo(link)
    refused(folder, "chat_template.jinja is no file")
    link.unlink()
    (folder / "vocab.json").mkdir()
    refused(folder, "vocab.json is no file")
    (folder / "vocab.json").rmdir()
    (folder / "config.json").write_text('{"a": ' * 100_000)
    refused(folder, r"damaged or incomplete \(config.json: ")
    (folder / "config.json").unlink()
    refused(folder, "config.json is missing")


def test_links_of_the_hub_cache_are_followed(tmp_path):
    """A snapshot there is made of links to blobs beside it."""
    snapshot, blobs = saved(tmp_path / "snapshots" / "abc"), tmp_path / "blobs"
    blobs.mkdir()
    before = load.load(snapshot)
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(f"../../blobs/{number}")
    assert load.load(snapshot).hash == before.hash


def test_the_hash_holds_what_is_read_and_no_more(folder):
    names = {path.name for path in folders.files(folder)}
    assert names == {path.name for path in folder.iterdir()} and "config.json" in names
    seen = {folders.folder_hash(folder)}
    for name in (
        "chat_template.jinja",
        "vocab.txt",
        "tokenizer.model",
        "special_tokens_map.json",
        "merges.txt",
    ):
        (folder / name).write_text(" ")
        seen.add(folders.folder_hash(folder))
    assert len(seen) == 6
    (folder / "sub").mkdir()
    for name in ("modeling.py", "pytorch_model.bin", "sub/config.json", "more.safetensors", INDEX):
        (folder / name).write_text("{}")
    workflow.content.cache_clear()
    assert workflow.content(str(folder)) == folders.folder_hash(folder)
    assert folders.folder_hash(folder) in seen and "more.safetensors" not in map(str, folders.files(folder))


@pytest.mark.fault(
    "Input",
    "A file of a model is changed while it is read",
    "An error names the file; the hash never speaks for others",
)
def test_a_file_that_changes_while_it_is_read(folder, monkeypatch):
    read = networks.opened

    def meddling(*args):
        found = read(*args)
        with (folder / "generation_config.json").open("a") as file:
            file.write(" ")
        return found

    monkeypatch.setattr(load, "opened", meddling)
    refused(folder, "generation_config.json changed while it was read; try again")


# Configurations


@pytest.mark.fault(
    "Input",
    "A configuration asks for quantized weights, a kernel of the hub, unknown attention, or absurd sizes",
    "One line says what; no package is loaded, no memory taken, no connection tried",
)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            r"quantization_config \(gptq\); accepted",
        ),
        (
            {"attn_implementation": "kernels-community/flash-attn"},
            "'kernels-community/flash-attn'; accepted are eager",
        ),
        ({"_attn_implementation": "flash_attention_2"}, "_attn_implementation 'flash_attention_2'"),
        ({"text_config": {"attn_implementation": {"": "owner/name"}}}, "'owner/name'"),
        ({"fusion_config": {"owner/name": True}}, "asks for fusion_config"),
        ({"num_labels": 10**9}, "num_labels 1000000000; accepted are at most"),
        ({"num_hidden_layers": 10**9}, "config.json says 1000000000 layers, the weights hold"),
        ({"hidden_size": 10**9}, r"damaged or incomplete \(its configuration asks for more than its"),
        ({"vocab_size": 10**12}, "damaged or incomplete"),
        ({"hidden_size": -1}, "damaged or incomplete"),
        ({"num_attention_heads": "four"}, "damaged or incomplete"),
        ({"max_position_embeddings": "owner/name"}, "max_position_embeddings"),
        ({"model_type": ["llama"]}, "folder"),
        ({"rope_parameters": {"rope_type": "\x1b[31mred\n"}}, "folder"),
    ],
)
def test_configurations_that_ask_for_too_much(fields, said, folder, alone):
    changed(folder / "config.json", **fields)
    begun = time.monotonic()
    refused(folder, said)
    assert time.monotonic() - begun < 5


@pytest.mark.fault(
    "Input",
    "A model folder with code of its own, names of hub models and no network",
    "The code is not run, no connection is tried; the model is read where its type is known",
)
def test_code_of_a_model_is_not_run(folder, tmp_path, alone, cache):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (folder / "modeling.py").write_text(code)
    own = {
        "AutoConfig": "modeling.C",
        "AutoModelForCausalLM": "modeling.M",
        "AutoTokenizer": ["modeling.T", None],
    }
    changed(folder / "config.json", auto_map=own, _name_or_path="owner/name")
    changed(
        folder / "tokenizer_config.json",
        auto_map=own,
        name_or_path="owner/name",
        tokenizer_file="/etc/passwd",
    )
    assert load.load(folder).tokens("the thing") == language_model().tokens("the thing")
    assert load.load(written(tmp_path / "small.gguf")).tokens("the thing")
    changed(folder / "config.json", model_type="own")
    refused(folder, r"folder is of a type that transformers .* cannot load")
    assert not (tmp_path / "ran").exists()


@pytest.mark.fault(
    "Input", "A tokenizer that is damaged or does not fit its network", "One line names the model"
)
@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": [["a", "b"]]}}),
        (
            "tokenizer.json",
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}},
        ),
        ("tokenizer_config.json", {"model_max_length": "owner/name"}),
        ("tokenizer_config.json", {"tokenizer_class": "AutoModel"}),
        ("generation_config.json", {"eos_token_id": ["</s>"]}),
    ],
)
def test_tokenizers_that_are_damaged(file, fields, folder, capfd):
    changed(folder / file, **fields)
    refused(folder, "folder")
    assert "panicked" not in capfd.readouterr().err


def test_tokens_that_the_network_does_not_know(folder):
    model = load.load(folder)
    model.tokenizer.add_tokens(["zebra"])
    with pytest.raises(ModelError, match="gives token 265; its network knows 265 tokens"):
        model.tokens("a zebra")


# Names and surroundings


@pytest.mark.fault(
    "Settings",
    "A model's path with spaces, quotes, colons, a dollar sign, line ends or letters of other scripts",
    "It is read; one whose bytes are no UTF-8 is refused in one line",
)
def test_names_of_models(folder, tmp_path):
    for name in ("a b", 'it\'s "x"', "x: y", "$(touch z)", "modèle 模型", "one\ntwo", "-x", "{{ 1 }}"):
        assert load.load(folder.rename(tmp_path / name)).name == str(tmp_path / name)
        folder = tmp_path / name
    (folder.rename(tmp_path / "one\ntwo") / "config.json").unlink()
    refused(tmp_path / "one\ntwo", r"one\\ntwo is damaged or incomplete \(config.json is missing\)")
    refused(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"), r"\\udcff': the path has bytes that are no UTF-8")
    refused("smolm2", r"model 'smolm2' is unknown; did you mean smollm2\? accepted are smollm2, ")
    for name in ("", "\0", "x" * 5000, "~nobody-here/x.gguf"):
        refused(name, "is unknown; accepted are smollm2")


@pytest.mark.skipif(
    not sys.prefix.isascii(), reason="from such a folder torch itself cannot be imported in such a locale"
)
@pytest.mark.fault(
    "Surroundings", "A locale that is not UTF-8", "A model's files are read as UTF-8 all the same"
)
def test_a_locale_that_is_not_utf8(folder):
    template = "{{ messages[0]['content'] + ' é 模' }}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    code = "import sys\nfrom ica.llm.model.load import load\n"
    code += "print(ascii(load(sys.argv[1]).chat([{'role': 'user', 'content': 'ü'}])))"
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", code.replace("ü", "\\xfc"), folder],
        env=environment,
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode("ascii").strip() == ascii("ü é 模")


@pytest.mark.slow
@pytest.mark.fault(
    "Surroundings",
    "A model of the hub, and a network that swallows every question",
    "One line, after a few seconds",
)
def test_a_hub_that_does_not_answer(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "HF_ENDPOINT": place, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
        code = "from ica.llm.model.load import load\ntry:\n    load('owner/name')\nexcept ValueError as error:\n    print(error)"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=True
        )
    assert done.stdout.decode().startswith(
        "model 'owner/name' is neither a local path nor in the local hub cache"
    )


def test_good_models_still_load_and_save(folder):
    found = load.load(folder)
    save_file(
        load_file(folder / "model.safetensors"),
        folder / "model-1-of-1.safetensors",
        metadata={"format": "pt"},
    )
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    changed(folder / INDEX, metadata={}, weight_map=dict.fromkeys(names, "model-1-of-1.safetensors"))
    again = load.load(folder)
    assert again.hash != found.hash
    torch.testing.assert_close(again.network.state_dict(), found.network.state_dict(), rtol=0, atol=0)
