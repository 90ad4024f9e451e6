"""Chat templates are programs that come with a model, so they run in a process of their own, which can be ended.

That process computes what transformers would, and has little time and memory for it: whatever a template does, it ends. A
template that asks for today's date is given a fixed one, so that prompts are the same tomorrow. The process
is started with the first template, serves all that follow, and ends with the one that asks.
"""

import atexit
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, tzinfo
from types import ModuleType

SECONDS = 2.0  # of computing, for one text
WAIT = 60.0  # seconds for one text in all, on a machine that is busy with other things
MEMORY = 1 << 28  # bytes that a template may take
EXCESS = 10  # the text may be so many times as long as template and messages together, and
SPARE = 10_000  # characters more
DATE = (2026, 1, 1)


class TemplateError(ValueError):
    """A template gives no text; the message goes on after the template's name."""


class _Renderer:
    """The process, started when it is needed, and again after it was ended."""

    def __init__(self) -> None:
        self.lock, self.process, self.owner = threading.Lock(), None, 0

    def ask(self, question: dict) -> dict:
        with self.lock:
            if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
                self.process, self.owner = self._start(), os.getpid()
            process = self.process
            try:
                with suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(question).encode() + b"\n")
                    process.stdin.flush()
                answer = process.stdout.readline()
            except BaseException:  # interrupted: the next answer would be this one's
                process.kill()
                raise
            if answer.endswith(b"\n"):
                return json.loads(answer)
            self.process = None
            return {"fails for": _ended(process.wait())}

    def close(self) -> None:
        """End the process, if this one started it."""
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.communicate()
        self.process = None

    @staticmethod
    def _start() -> subprocess.Popen:
        command = [sys.executable, "-P", __file__]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, **pipes, env=environment, start_new_session=True)


def _ended(code: int) -> str:
    if -code in (signal.SIGPROF, signal.SIGALRM):
        return f"it takes longer than {SECONDS:g} s"
    return f"the process that runs it ended with status {code}"


_renderer = _Renderer()
atexit.register(_renderer.close)


def render(template: str, messages: Sequence[Mapping[str, str]], names: Mapping[str, object]) -> str:
    """The text of a conversation, up to where the assistant's next turn begins.

    Args:
        template: the chat template, in Jinja.
        messages: the turns, each with `role` and `content`.
        names: what else the template may use: the model's special tokens.

    Raises:
        TemplateError: the template refuses the turns, fails, does not end, or gives far more text than it was given.
    """
    question = {"template": template, "messages": [dict(one) for one in messages], "names": dict(names)}
    answer = _renderer.ask(question)
    if "text" not in answer:
        ((does, why),) = answer.items()
        raise TemplateError(f"{does} the roles {', '.join(message['role'] for message in messages)} ({why})")
    return answer["text"]


# What follows runs in the other process.


def _rendered(utils: ModuleType, template: str, messages: list, names: dict) -> dict[str, str]:
    """The text, or why there is none."""
    import jinja2

    try:
        ((text,), _) = utils.render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=True, **names
        )
    except jinja2.TemplateError as error:
        does = (
            "refuses" if type(error) is jinja2.TemplateError else "fails for"
        )  # the very class: raise_exception
        return {does: str(error) if does == "refuses" else f"{type(error).__name__}: {error}"}
    except MemoryError:
        return {"fails for": f"it takes more than {MEMORY >> 20} MiB of memory"}
    except Exception as error:  # noqa: BLE001  (whatever the model's own program does)
        return {"fails for": f"{type(error).__name__}: {error}"}
    most = (
        EXCESS * (len(template) + sum(len(str(value)) for one in messages for value in one.values())) + SPARE
    )
    if len(text) > most:
        return {
            "fails for": f"it gives {len(text)} characters; accepted are at most {most} for this conversation"
        }
    return {"text": text}


def _limit() -> None:
    """No files to write, and little more memory than what the process has by now."""
    import psutil

    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)  # they end the process, wherever it is
    most = psutil.Process().memory_info().vms + MEMORY
    for kind, value in ((resource.RLIMIT_AS, most), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with suppress(
            ValueError, OSError
        ):  # some systems do not limit memory: then the time alone is limited
            resource.setrlimit(kind, (value, value))


def _serve() -> None:
    """Answer one line of JSON by another, until there are no more."""
    from transformers.utils import chat_template_utils as utils

    class Fixed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime(*DATE, tzinfo=tz)

    utils.datetime = Fixed
    _limit()
    for asked in sys.stdin.buffer:
        question = json.loads(asked)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAIT)
        answer = json.dumps(_rendered(utils, **question))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
