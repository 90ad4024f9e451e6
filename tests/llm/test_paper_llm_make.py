"""`make paper-llm` itself: words reach the program as they are, and the default model is asked whole in a few minutes."""

import re
from pathlib import Path

import pytest
from small_project import run_make

from ica.llm.model import assets
from ica.llm.paper import results, summary
from ica.llm.paper.defence import DEFENCES

ROOT = Path(__file__).parents[2]
MINUTES, CORES = 3.0, 2


def made(folder: Path, *words: str):
    return run_make(folder, "paper-llm", *words, PYTHONPATH=str(ROOT))


@pytest.mark.slow
def test_make_passes_words_as_they_are(tmp_path):
    words = "$(shell touch pwned) `touch pwned`; touch pwned; \"'*"
    done = made(tmp_path, "MODEL=smollm2", f"TEMPLATE={words}", "OUT=out")
    assert done.returncode != 0 and "accepted are vicuna, llama-2, and the path" in done.stdout, done.stdout
    assert "pwned`; touch pwned; \"'* cannot be read" in done.stdout and "Traceback" not in done.stdout
    assert not (tmp_path / "pwned").exists() and not (tmp_path / "out").exists()
    done = made(tmp_path, "MODEL=smolm2", "ITEMS=4", "OUT=out")
    assert done.returncode != 0 and "did you mean smollm2?" in done.stdout
    assert re.search(r"^  make paper-llm +the paper's protocol", run_make(tmp_path).stdout, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.skipif(not assets.is_here("smollm2"), reason="SmolLM2 is not in the cache")
def test_the_default_model_is_asked_whole(tmp_path):
    done = made(tmp_path, "MODEL=smollm2", "ITEMS=4", f"THREADS={CORES}", f"OUT={tmp_path / 'out'}")
    assert done.returncode == 0, done.stdout
    result = results.read(tmp_path / "out" / "smollm2.json")
    assert len(result["records"]) == 44 and result["small"] and result["trial"]
    assert {name for row in result["defended"] for name in row if name in DEFENCES} == set(DEFENCES)
    assert set(summary.claims(result)["verdict"]) == {"not judged (small run)"}
    assert [path.name for path in (tmp_path / "out").glob("*.json")] == ["smollm2.json"]
