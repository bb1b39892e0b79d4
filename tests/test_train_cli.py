"""From rows to a trained folder by the command line: data check, train, export, and using what came out."""

import json
import shutil

import pytest
import torch

from bagel import lora, lora_files
from bagel.app.cli import main
from bagel.checkpoint import load
from bagel.infer.pipeline import find_model
from conftest import CHECKPOINT, GOLDEN

DATA = """
data:
  expected_num_tokens: 200
  max_num_tokens: 400
  max_num_tokens_per_sample: 300
  workers: 0
  datasets:
    - {{name: questions, recipe: understand, path: {folder}/rows.jsonl, root: {folder}}}
"""
RUN = """
run: {folder}/run
model: {{path: {model}}}
steps: 2
device: cpu
loss: {{ce_limit: null}}
"""


@pytest.fixture
def folder(tmp_path):
    """Five rows about one picture, data.yaml and train.yaml."""
    shutil.copy(GOLDEN / "images" / "wide.png", tmp_path / "wide.png")
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "a red cube"}]
    row = json.dumps({"image": "wide.png", "conversations": turns})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n" * 5)
    (tmp_path / "data.yaml").write_text(DATA.format(folder=tmp_path))
    (tmp_path / "train.yaml").write_text((RUN + DATA).format(folder=tmp_path, model=CHECKPOINT))
    return tmp_path


def code(*arguments):
    """The exit code of a command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        return stopped.code
    return 0


def test_data_check(folder, capsys):
    assert code("data", "check", folder / "data.yaml", "--sheets", folder / "sheets") == 0
    assert "5 rows in 1 files, 5 checked" in capsys.readouterr().out
    assert (folder / "sheets" / "questions.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("rows.jsonl", '{"image": "gone.png", "conversations": []}\n'), "questions"),
        (("data.yaml", "data: [1, 2]"), "must hold an object"),
        (("data.yaml", "data: {datasets: ["), "is no valid YAML"),
        (("data.yaml", "data: {datasets: [{nome: x}]}"), "nome"),
    ],
)
def test_data_check_refuses(folder, capsys, change, says):
    (folder / change[0]).write_text(change[1])
    assert code("data", "check", folder / "data.yaml") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error


def test_data_check_reads_what_training_reads(folder, capsys):
    """The base and the overrides count: a budget that only both files together break is refused by both commands."""
    own = folder / "own.yaml"
    own.write_text("base: train.yaml\ndata: {max_num_tokens: 250}\n")
    for words in (("data", "check", own), ("train", own)):
        assert code(*words) == 1
        assert "max_num_tokens_per_sample 300 is above data.max_num_tokens 250" in capsys.readouterr().err
    assert code("data", "check", own, "data.max_num_tokens_per_sample=250") == 0
    assert "5 checked" in capsys.readouterr().out


def test_train_names_a_misspelt_key(folder, capsys):
    assert code("train", folder / "train.yaml", "stepps=3") == 1
    error = capsys.readouterr().err
    assert "stepps" in error
    assert "steps" in error.replace("stepps", "")


def test_train_export_and_use(folder, capsys):
    assert code("train", folder / "train.yaml") == 0
    assert code("export", folder / "run", folder / "out") == 0
    assert {"ema.safetensors", "ae.safetensors", "llm_config.json"} <= {p.name for p in (folder / "out").iterdir()}
    capsys.readouterr()
    assert code("chat", "hello", "-m", folder / "out", "--max-tokens", 5, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["token_ids"]) <= 5


def test_export_of_nothing(folder, capsys):
    assert code("export", folder / "nowhere", folder / "out") == 1
    assert "nowhere" in capsys.readouterr().err


def test_an_adapter_is_merged_into_a_model_by_its_name(tmp_path, capsys):
    checkpoint = load(find_model("mini"), torch.device("cpu"), torch.bfloat16)
    lora.attach(checkpoint.model, lora.LoraConfig(rank=1, experts=("gen",), projections=("q",)))
    lora_files.save(checkpoint.model, tmp_path / "adapter")
    assert code("export", tmp_path / "adapter", tmp_path / "out", "--base", "mini") == 0
    assert "from the base" in capsys.readouterr().out
    assert code("export", tmp_path / "adapter", tmp_path / "out2", "--base", "nix") == 1
    assert "There is no model folder nix" in capsys.readouterr().err
