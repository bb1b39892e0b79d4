"""Samples by number: the same everywhere, small to send, complete."""

import os
import pickle
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

import pytest

from bagel.world import TASKS, Picture, TargetAnswer, TargetPicture, Text, Thought, make, sample, samples

ALL = [(task, category) for task, categories in TASKS.items() for category in categories]


def fingerprint(index: int) -> tuple[str, int]:
    """What a worker process sees of a sample."""
    made = sample(9, index)
    return repr(made.parts), sum(int(part.pixels().sum()) for part in made.parts if isinstance(part, Picture))


@pytest.mark.parametrize(("task", "category"), ALL)
def test_a_sample_is_well_formed(task, category):
    for split in ("train", "heldout"):
        made = make(task, category, 0, 0, split)
        assert made == make(task, category, 0, 0, split)
        assert made == pickle.loads(pickle.dumps(made))
        assert made != make(task, category, 0, 1, split)
        assert len(made.goals) == len(made.targets) >= 1
        assert made.prompt
        texts = [part.text for part in made.parts if isinstance(part, Text | Thought | TargetAnswer)]
        assert all(text and not set(text) & set("{}[]|") and "  " not in text for text in texts)
        for part in made.parts:
            if isinstance(part, Picture):
                assert part.pixels().shape == (128, 128, 3)
                assert part.pixels().dtype == "uint8"


def test_other_processes_see_the_same():
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(fingerprint, range(12))) == [fingerprint(index) for index in range(12)]


def test_workers_share_one_stream():
    whole = list(islice(samples(3), 10))
    assert list(islice(samples(3, start=1, step=2), 5)) == whole[1::2]


def test_the_mixture_holds_all_tasks_and_both_languages():
    stream = list(islice(samples(6), 600))
    tasks, languages = Counter(made.task for made in stream), Counter(made.language for made in stream)
    assert set(tasks) == set(TASKS)
    assert 0.25 < languages["zh"] / len(stream) < 0.45


def test_language_can_be_chosen():
    english = [make("edit", "add", 0, index, language="en") for index in range(20)]
    assert all(part.text.isascii() for made in english for part in made.parts if isinstance(part, Text))


def test_only_think_thinks_and_thoughts_can_be_left_out():
    assert not any(isinstance(part, Thought) for part in make("reason", "swap", 0, 0).parts)
    thinking = make("think", "sum", 0, 0)
    thought = next(part for part in thinking.parts if isinstance(part, Thought))
    assert thought.tagged == f"<think>\n{thought.text}\n</think>"
    assert thinking.without_thoughts().targets == thinking.targets
    assert not any(isinstance(part, Thought) for part in thinking.without_thoughts().parts)


def test_an_interleaved_sample_has_several_pictures_to_make():
    steps = make("think", "steps", 0, 0)
    assert [type(part) for part in steps.parts[2:]] == [Thought, TargetPicture] * 2


def test_sampling_needs_no_scipy():
    code = "import sys; sys.modules['scipy'] = None; import bagel.world as w; w.sample(0, 0).targets"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
