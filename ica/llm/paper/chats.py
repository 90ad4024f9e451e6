"""Chat templates: the model's own, one of two built in for models that come without, or a Jinja file.

`vicuna` is FastChat's format of Vicuna v1.1 to v1.5 (a sentence of the system, USER and ASSISTANT, </s> after
each answer), `llama-2` that of Llama-2-chat ([INST] and <<SYS>>). The released code asks Llama-2 in the
Vicuna format too, on BBQ; TEMPLATE=vicuna does so.
"""

from collections.abc import Sequence
from pathlib import Path

from ica.llm.bbq.rows import content
from ica.llm.model.folders import shown
from ica.llm.model.load import LanguageModel, ModelError

_TURNS = (
    "{% if messages[0]['role'] == 'system' %}{% set lead = messages[0]['content'] %}{% set turns = messages[1:] %}"
    "{% else %}{% set lead = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}{% endfor %}"
)
_VICUNA = (
    "{{ 'A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user\\'s questions.' }}{% if lead %}{{ ' ' + lead }}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}{{ (' ' if loop.first else '') + 'USER: ' + m['content'] }}"
    "{% else %}{{ ' ASSISTANT: ' + m['content'] + (eos_token or '</s>') }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
_LLAMA_2 = (
    "{% for m in turns %}{% if m['role'] == 'user' %}{{ (bos_token or '<s>') + '[INST] ' }}"
    "{% if loop.first and lead %}{{ '<<SYS>>\\n' + lead + '\\n<</SYS>>\\n\\n' }}{% endif %}{{ m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + (eos_token or '</s>') }}{% endif %}{% endfor %}"
)
BUILT_IN = {"vicuna": _TURNS + _VICUNA, "llama-2": _TURNS + _LLAMA_2}
LONGEST = 100_000  # characters of a template


def given(name: str) -> str | None:
    """The template that a name or a path means; None for "", the model's own.

    Raises:
        ValueError: neither a built-in name nor a file of text that can be read.
    """
    if not name:
        return None
    if name in BUILT_IN:
        return BUILT_IN[name]
    accepted = f"accepted are {', '.join(BUILT_IN)}, and the path of a Jinja file"
    try:
        text = content(Path(name).expanduser())
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"TEMPLATE: {shown(name)} cannot be read ({why}); {accepted}") from error
    if not 0 < len(text) <= LONGEST or "messages" not in text:
        raise ValueError(
            f"TEMPLATE: {shown(name)} is no chat template (it does not name `messages`); {accepted}"
        )
    return text


def fit(model: LanguageModel, template: str | None) -> None:
    """Let the model be asked in this template (None: its own), and see that it renders a dialogue.

    Raises:
        ModelError: no template at all, or one that does not show what the turns say.
    """
    if template is not None:
        model.tokenizer.chat_template = template
    if model.tokenizer.chat_template is None:
        raise ModelError(
            f"model {shown(model.name)} has no chat template; TEMPLATE=vicuna, TEMPLATE=llama-2 or TEMPLATE=file.jinja gives one"
        )
    talk = [
        {"role": role, "content": f"turn {name}"}
        for role, name in (("user", "one"), ("assistant", "two"), ("user", "three"))
    ]
    text = model.chat(talk)
    places = [text.find(turn["content"]) for turn in talk]
    if -1 in places or places != sorted(places):
        raise ModelError(
            f"the chat template of {shown(model.name)} does not show the turns of a dialogue in their order"
        )


def takes_system(model: LanguageModel) -> bool:
    """Has the template a place for a system's message?"""
    try:
        return "place-of-the-system" in model.chat(
            [{"role": "system", "content": "place-of-the-system"}, {"role": "user", "content": "a"}]
        )
    except ModelError:
        return False


def opened(
    model: LanguageModel, system: str, text: str, demonstrations: Sequence[dict] = ()
) -> list[dict[str, str]]:
    """A dialogue up to the user's `text`, after demonstrations; without a place for the system its message
    heads the first user's turn."""
    talk = [*demonstrations, {"role": "user", "content": text}]
    if system and takes_system(model):
        return [{"role": "system", "content": system}, *talk]
    return [{"role": "user", "content": f"{system}\n\n{talk[0]['content']}"}, *talk[1:]] if system else talk


def begun(prompt: str, text: str) -> str:
    """The prompt with the beginning of the assistant's turn, apart by a space unless white space ends the
    prompt."""
    return prompt + text if not text or prompt[-1:].isspace() else f"{prompt} {text}"
