"""Kept answers: the same numbers after any end, two writers at once, damage named."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from small_language_model import language_model

from ica.llm.model.cache import CacheError, CallCache, call_key, digest
from ica.llm.model.engine import Engine
from ica.llm.model.scoring import Request

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "llm"))),
    "OMP_NUM_THREADS": "1",
}
RUNS = """
import os, sys, torch
from pathlib import Path
from small_language_model import language_model
from test_cache import run
from ica.llm.model.cache import CallCache
torch.set_num_threads(1)
for _ in range(4):
    child = os.fork()
    if not child:
        run(language_model(), CallCache(Path(sys.argv[1])))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
WRITE = """
import sys
from pathlib import Path
from ica.llm.model.cache import CallCache
cache = CallCache(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for n in range(300):
    cache.put(str(n), [n, "x" * 500])
    cache.put(f"{sys.argv[2]} {n}", n)
"""
CALLS = 40


def run(model, cache: CallCache | None) -> tuple[list, Engine]:
    """A protocol of dependent calls: what is asked next depends on the answer before."""
    engine, found = Engine(model, cache, width=64), []
    for n in range(CALLS):
        item = f"the thing {n} is " * 6
        scores = engine.score([Request(item, (" A", " the", " er ing"))], anchors=[item])[0]
        best = (" A", " the", " er ing")[int(scores.means.argmax())]
        (written,) = engine.generate([item + best], 5, anchors=[item])
        found.append((scores, written))
    return found, engine


def wait_for_answers(folder: Path, count: int) -> None:
    """Until the files of a cache hold this many lines, a minute at most."""
    end = time.monotonic() + 60
    while sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl")) < count:
        assert time.monotonic() < end, f"no {count} answers after a minute"
        time.sleep(0.001)


def test_a_run_killed_again_and_again_ends_with_the_same_numbers(tmp_path):
    command = [sys.executable, "-c", RUNS, str(tmp_path)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    stops = 0
    for attempt in range(4):
        child = int(process.stdout.readline())
        # killed when it has kept so many answers more, whatever the speed of the machine, and a moment later
        wait_for_answers(tmp_path, 15 * (attempt + 1))
        time.sleep(random.Random(attempt).uniform(0.0, 0.005))
        with suppress(ProcessLookupError):  # it may have come to its end
            os.kill(child, signal.SIGKILL)
        stops += int(process.stdout.readline()) == -signal.SIGKILL
    process.communicate()
    kept = CallCache(tmp_path)
    found, engine = run(language_model(), kept)
    assert stops >= 2 and engine.computed < engine.asked == 2 * CALLS and not kept.damaged
    assert found == run(language_model(), None)[0]
    again, engine = run(language_model(), CallCache(tmp_path))
    assert again == found and engine.computed == 0


def test_two_processes_write_at_once(tmp_path):
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    processes = [subprocess.Popen([*command, name], **pipes) for name in "ab"]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    cache = CallCache(tmp_path)
    assert all(process.returncode == 0 for process in processes) and not cache.damaged
    assert len(cache) == 900 and all(cache.get(str(n)) == [n, "x" * 500] for n in range(300))


def test_answers_come_back_exactly(tmp_path):
    answer = {"numbers": [0.1 + 0.2, -1e-300, 5], "text": 'é\n\u2028"<s>', "half": "\ud800", "none": None}
    CallCache(tmp_path).put("k", answer)
    assert CallCache(tmp_path).get("k") == answer and CallCache(tmp_path).get("other") is None


@pytest.mark.parametrize("damage", ["flip", "cut", "garbage", "key"])
def test_a_damaged_line_is_named_and_computed_again(damage, tmp_path):
    cache = CallCache(tmp_path)
    for n in range(3):
        cache.put(f"key{n}", [n, 0.5])
    (path,) = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {
        "flip": lines[1].replace(b"0.5", b"0.4"),
        "cut": lines[1][:20] + b"\n",
        "garbage": b"\xff\xfe\n",
        "key": lines[1].replace(b"key1", b"key9"),
    }
    path.write_bytes(lines[0] + changed[damage] + lines[2])
    with pytest.warns(UserWarning, match=f"{path.name}, line 2 is damaged"):
        found = CallCache(tmp_path)
    assert [found.get(f"key{n}") for n in (0, 1, 2, 9)] == [[0, 0.5], None, [2, 0.5], None]
    assert found.damaged == [f"{path}, line 2 is damaged"]


def test_an_unfinished_last_line_is_left_aside(tmp_path):
    cache = CallCache(tmp_path)
    cache.put("a", 1)
    cache.put("b", 2)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    found = CallCache(tmp_path)
    assert (found.get("a"), found.get("b"), found.damaged) == (1, None, [])


def test_a_full_disk_is_named_and_leaves_the_answers_before(tmp_path):
    cache = CallCache(tmp_path)
    cache.put("a", 1)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # no file may grow past 2000 bytes
    try:
        with pytest.raises(CacheError, match=r"could not be written to .*\.jsonl"):
            cache.put("b", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    cache.put("c", 3)
    found = CallCache(tmp_path)
    assert (found.get("a"), found.get("b"), found.get("c"), found.damaged) == (1, None, 3, [])


def test_a_fork_begins_a_file_of_its_own(tmp_path):
    cache = CallCache(tmp_path)
    cache.put("parent", 1)
    child = os.fork()
    if not child:
        cache.put("child", 2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    cache.put("later", 3)
    assert len(list(tmp_path.iterdir())) == 2 and len(CallCache(tmp_path)) == 3


def test_whatever_determines_an_answer_is_in_the_key(tmp_path):
    keys = {call_key(m, k, s, p) for m in "ab" for k in "st" for s in ({}, {"n": 1}) for p in ([], ["x"])}
    assert len(keys) == 16 and digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    model, cache = language_model(), CallCache(tmp_path)
    asked = [Request("the thing", (" A",))]
    for engine in (Engine(model, cache), Engine(model, cache, slots=64), Engine(model, cache, width=2)):
        engine.score(asked)
        engine.score(asked, anchors=["the"])
        engine.generate(["the thing"], 2)
        engine.generate(["the thing"], 3)
        assert engine.asked == engine.computed == 4
    engine = Engine(model, CallCache(tmp_path))
    engine.score(asked)
    assert (engine.asked, engine.computed) == (1, 0)


def test_prompts_are_not_kept(tmp_path):
    Engine(language_model(), CallCache(tmp_path)).score([Request("the secret thing", (" A",))])
    (path,) = tmp_path.iterdir()
    assert "secret" not in path.read_text() and set(json.loads(path.read_text())) == {
        "key",
        "check",
        "answer",
    }


def test_anchors_are_kept_within_bounds_and_change_nothing():
    model = language_model()
    engine = Engine(model, width=20, room=64)
    for n in range(10):
        item = f"item {n} " * 4
        asked = [Request(item + "the", (" A", " the er"))]
        (found,), (plain,) = engine.score(asked, anchors=[item]), Engine(model).score(asked)
        for a, b in zip(found.tokens, plain.tokens, strict=True):
            assert a == pytest.approx(b, abs=1e-4)
    assert 0 < engine._held() <= 64
