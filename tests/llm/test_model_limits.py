"""What a model may take: memory, the header of its GGUF file, and the time and memory of its chat template."""

import json
import os
import struct
import time

import psutil
import pytest
from small_language_model import changed, language_model, refused, saved, written

from ica.llm.model import headers, templates
from ica.llm.model.load import ModelError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "folder")


# Memory


@pytest.mark.fault(
    "Input",
    "A model too large for the memory that is free, as a folder and as a GGUF file",
    "It is refused before a weight is read, with the figures and what would fit",
)
def test_models_too_large_for_memory(folder, tmp_path, cache, monkeypatch):
    head = json.dumps(
        {"w": {"dtype": "F16", "shape": [50_000, 1_000_000], "data_offsets": [0, 10**11]}}
    ).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + 10**11)  # of which the disk holds the beginning alone
    changed(folder / "config.json", num_hidden_layers=1)
    monkeypatch.setattr(headers, "available", lambda: 10**11 + 10**10)
    refused(
        folder,
        r"folder needs about 186.8 GiB of memory \(50,000 million numbers in float32, and 0.5 GiB to work with\), but 102.4 GiB "
        r"are free; accepted are smaller models, or this one with dtype='bfloat16' \(93.6 GiB\)",
    )
    monkeypatch.setattr(headers, "available", lambda: 1 << 28)
    refused(written(tmp_path / "small.gguf"), "small.gguf needs about 0.5 GiB .* in float32")
    assert not cache.exists() or not list(cache.rglob("*.safetensors"))


@pytest.mark.parametrize("version", [1, 2])
def test_memory_is_what_the_control_group_allows(version, tmp_path):
    base = tmp_path / ("memory" if version == 1 else "")
    inner = base / "slice" / "job"
    inner.mkdir(parents=True)
    names = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if version == 1
        else ("memory.max", "memory.current")
    )
    cached = "total_inactive_file" if version == 1 else "inactive_file"
    for place, (most, used) in ((inner, ("max", 5000)), (inner.parent, (9000, 6000))):
        for name, value in zip((*names, "memory.stat"), (most, used, f"anon 1\n{cached} 500\n"), strict=True):
            (place / name).write_text(f"{value}")
    own = tmp_path / "cgroup"
    own.write_text("3:cpu:/other\n" + ("4:memory:/slice/job\n" if version == 1 else "0::/slice/job\n"))
    assert headers.available(tmp_path, own) == 3500
    assert headers.available(tmp_path, tmp_path / "none") > 3500


# GGUF


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf(entries: list[bytes], tensors: list[bytes], counts=None, version: int = 3) -> bytes:
    found = counts or (len(tensors), len(entries))
    return b"GGUF" + struct.pack("<IQQ", version, *found) + b"".join(entries + tensors) + bytes(64)


def tensor(kind: int, axes: tuple[int, ...] = (4,), offset: int = 0) -> bytes:
    return text(b"w") + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, kind, offset)


NAME = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")


@pytest.mark.fault(
    "Input",
    "A GGUF file of an unknown version or quantization type, with absurd counts, or text that is no UTF-8",
    "One line says what, before memory is taken",
)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "does not begin as a GGUF file does"),
        (gguf([NAME], [], version=9), "GGUF version 9; accepted are 2 and 3"),
        (gguf([NAME], [tensor(77)]), "is of a type that cannot .* unknown quantization type 77"),
        (gguf([NAME], [], counts=(2**60, 1)), f"says {2**60} tensors; accepted"),
        (gguf([NAME], [], counts=(0, 2**60)), f"says {2**60} entries; accepted"),
        (gguf([struct.pack("<Q", 2**62)], []), f"says {2**62} bytes for the name of an entry; accepted"),
        (gguf([text(b"a") + struct.pack("<IIQ", 9, 0, 2**62)], []), f"says {2**62} values for a; accepted"),
        (gguf([text(b"a") + struct.pack("<IIQ", 9, 8, 4_000_000)], []), "ends within its header"),
        (gguf([text(b"a") + struct.pack("<IIQ", 9, 9, 4)], []), "a is an array of the unknown type 9"),
        (gguf([text(b"a") + struct.pack("<I", 8) + text(b"\xff")], []), "a is no UTF-8"),
        (gguf([NAME], [tensor(0, (2**40, 2**40))]), "tensor w ends at byte"),
        (gguf([NAME], [tensor(0, (4,) * 9)]), "tensor w has 9 axes"),
        (gguf([text(b"x.block_count") + struct.pack("<II", 4, 10**9)], []), "says 1000000000 layers"),
        (gguf([NAME], [tensor(0)]), "bad.gguf"),
    ],
)
def test_gguf_files_that_are_none(content, said, tmp_path, cache):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    begun = time.monotonic()
    refused(path, said)
    assert time.monotonic() - begun < 5 and not list(tmp_path.rglob("*.safetensors"))


# Chat templates

TURNS = [{"role": "user", "content": "hi é <b>"}, {"role": "assistant", "content": "no\nway"}]
GOOD = (
    "{{ bos_token }}{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}",
    "{% generation %}{{ messages[0].content | upper }}{% endgeneration %}{{ add_generation_prompt }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}  {{ ns.n }}{{ tools }}",
    "{%- for m in messages -%}\n  {%- if m['role'] == 'user' %}\n  {{ m.content.strip() }}\n  {% endif %}\n{%- endfor %}",
)


@pytest.mark.parametrize("template", GOOD)
def test_a_template_gives_what_transformers_gives(template):
    model = language_model()
    model.tokenizer.chat_template = template
    expected = model.tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    assert model.chat(TURNS) == expected


def test_a_template_that_asks_for_the_date_is_given_a_fixed_one():
    assert templates.render("{{ strftime_now('%d %b %Y') }}", TURNS, {}) == "01 Jan 2026"


@pytest.mark.fault(
    "Input",
    "A chat template that divides by zero, adds a number to a text, calls itself, or asks for what the sandbox forbids",
    "One line names the model, the roles and the reason",
)
@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 1 // 0 }}", "fails for the roles user, assistant (ZeroDivisionError: "),
        ("{{ 1 + 'a' }}", "TypeError: unsupported operand"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ range(10 ** 12) }}", "OverflowError: Range too big"),
        ("{{ messages[9].content.x }}", "UndefinedError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "RecursionError"),
        ("{{ raise_exception('\x1b[31mno\n![x](y)') }}", "refuses the roles user, assistant (no ![x](y))"),
        ({"tool_use": "x"}, "default"),
        (5, "chat template"),
    ],
)
def test_templates_that_fail(template, said):
    model = language_model()
    model.tokenizer.chat_template = template
    with pytest.raises(ModelError) as caught:
        model.chat(TURNS)
    assert (
        said in str(caught.value) and "small llama" in str(caught.value) and str(caught.value).isprintable()
    )


@pytest.mark.fault(
    "Input",
    "A chat template of nested loops that never end, or one that takes all memory",
    "It is ended after a few seconds, with one line that says so; the next conversation is rendered",
)
@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "it takes longer than",
        ),
        ("{{ 'a' * 10 ** 10 }}", "it takes more than 256 MiB of memory"),
        ("{{ '%0999999999d' % 1 }}", "it takes more than 256 MiB of memory"),
        ("{{ 'a' * 10 ** 6 }}", "it gives 1000000 characters; accepted are at most"),
    ],
)
def test_templates_without_an_end(template, said):
    begun = time.monotonic()
    model = language_model()
    good, model.tokenizer.chat_template = model.tokenizer.chat_template, template
    with pytest.raises(ModelError, match=said):
        model.chat(TURNS)
    model.tokenizer.chat_template = good
    assert model.chat(TURNS[:1]) == "<s>user\nhi é <b></s>\n<s>assistant\n"
    assert time.monotonic() - begun < 4 * templates.SECONDS + 10


@pytest.mark.fault(
    "Ends",
    "The process that renders chat templates is killed, or the one that uses it forks",
    "Another takes its place",
)
def test_the_renderer_is_replaced():
    model = language_model()
    expected = model.chat(TURNS)
    psutil.Process(templates._renderer.process.pid).kill()
    templates._renderer.process.wait()
    assert model.chat(TURNS) == expected
    before = templates._renderer.process.pid
    if not (child := os.fork()):
        os._exit(model.chat(TURNS) != expected or templates._renderer.process.pid == before)
    assert os.waitpid(child, 0)[1] == 0 and model.chat(TURNS) == expected
