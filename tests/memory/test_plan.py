"""The planner against peaks measured on an H100, and on cards that are imagined."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from bagel import Bagel, InputError, MemoryPlanError
from bagel import checkpoint as checkpoints
from bagel.app import cli
from bagel.infer import loading
from bagel.infer.loading import Wanted, plan_for, setup_of, usual_demand
from bagel.memory.cards import Card
from bagel.memory.plan import OFFLOADABLE, Ask, Setup, alternatives, choose, plan, setup_for
from bagel.memory.plan_split import check_split, split_peaks
from bagel.memory.room import Room
from bagel.memory.sizes import GIB, JOBS, VISITS, Demand, allocated, kv_bytes, phases, weights_of
from bagel.memory.table import table
from bagel.model import published
from bagel.model.config import ModelConfig
from bagel.model.published import SEVEN_B
from conftest import CHECKPOINT

DRAW, EDIT, CHAT = (Demand.of(SEVEN_B, job) for job in ("draw", "edit", "chat"))
SMALL = Demand.of(SEVEN_B, "draw", 512, 512)
H100 = Card("an H100", 79 * GIB, 78 * GIB)

MEASURED = [
    ("bf16", DRAW, 29.0),
    ("bf16", EDIT, 30.6),
    ("bf16", SMALL, 27.95),
    ("bf16", CHAT, 28.6),
    ("fp8", DRAW, 16.8),
    ("fp8", EDIT, 18.4),
    ("fp8", SMALL, 15.7),
]
"""`torch.cuda.max_memory_allocated` at 7B size, GiB: `bagel bench` on one H100 80GB."""


@pytest.mark.parametrize(("precision", "demand", "measured"), MEASURED)
def test_peaks_are_as_measured(precision, demand, measured):
    expected = plan(SEVEN_B, H100, demand, setup_for(H100, precision))
    assert expected.peak / GIB == pytest.approx(measured, rel=0.01)
    # What is not weights, where it is large enough to have been measured with two digits.
    assert expected.work == pytest.approx(measured * GIB - expected.resident, rel=0.15)


def test_weights_are_as_measured():
    assert weights_of(SEVEN_B, torch.bfloat16, None).total / GIB == pytest.approx(27.43, abs=0.05)
    whole = weights_of(SEVEN_B, torch.float32, None)
    assert whole.total == pytest.approx(2 * weights_of(SEVEN_B, torch.bfloat16, None).total, rel=0.01)
    # 4.25 bits of 16, the head and the table in 8.
    assert weights_of(SEVEN_B, torch.bfloat16, "nf4").parts["gen"] == pytest.approx(6.52e9 * 4.25 / 8, rel=0.02)


def test_weights_are_what_loading_allocates():
    from bagel import checkpoint as checkpoints

    for precision in (None, "bf11", "fp8", "int8", "nf4"):
        loaded = checkpoints.load(CHECKPOINT, torch.device("cpu"), torch.bfloat16, precision=precision)
        found = [*loaded.model.parameters(), *loaded.model.buffers(), *loaded.vae.parameters()]
        total = sum(allocated(value.numel() * value.element_size()) for value in found)
        assert weights_of(loaded.config, torch.bfloat16, precision).total == total


def test_allocated_counts_pieces():
    assert allocated(1) == 512
    assert allocated(11 * 2**20) == 12 * 2**20  # a rest of 1 MiB stays
    assert allocated(10 * 2**20 + 1) == 10 * 2**20 + 512  # a larger one is split off


@pytest.mark.parametrize("demand", [DRAW, EDIT])
def test_a_32_gb_card_takes_bf16_without_offload(demand):
    made = choose(SEVEN_B, Card.imagined("32"), demand, Ask())
    assert (made.setup.precision, made.setup.offload, made.fits) == ("bf16", (), True)


@pytest.mark.parametrize(
    ("card", "first", "peak"),
    [("24", "fp8", 18.0), ("24-nofp8", "int8", 18.0), ("16", "nf4", 14.5), ("12", "nf4", 10.8), ("8", "nf4", 7.3)],
)
def test_what_is_recommended(card, first, peak):
    """The first that fits of what a user of a smaller card is told, within the issue's limits."""
    best = next(alternatives(SEVEN_B, Card.imagined(card), DRAW))
    assert best.setup.precision == first
    assert best.peak <= peak * GIB
    assert bool(best.setup.offload) == (card == "8")


@pytest.mark.parametrize("card", ["24", "16", "12", "8"])
def test_no_silent_spill(card):
    with pytest.raises(
        MemoryPlanError, match=r"bf16 needs 29\.5 GiB.*has .* free\. These would fit: precision"
    ) as said:
        choose(SEVEN_B, Card.imagined(card), DRAW, Ask())
    assert "offload auto" in str(said.value)
    assert "und,gen,vit,vae,embed on the host" in str(said.value)
    exact = choose(SEVEN_B, Card.imagined(card), DRAW, Ask("bf16", "auto"))
    assert exact.setup.precision == "bf16"
    assert exact.fits
    assert exact.moved > 0


def asked_for(words: str) -> list[Ask]:
    """The setups that an error names, as a user would ask for them."""
    named = re.findall(r"precision (\w+)(, offload auto)?(?:, layers shared by (\d) cards)? \(", words)
    return [Ask(precision, "auto" if auto else None, int(shared or 1)) for precision, auto, shared in named]


def refused(card: str, demand: Demand, ask: Ask) -> str:
    """What the error says; nothing where the setup fits."""
    try:
        choose(SEVEN_B, Card.imagined(card), demand, ask)
    except MemoryPlanError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("card", ["4", "6", "6-fp16", "8", "10", "11", "12", "12-fp16", "16-nofp8", "24", "32-fp16"])
@pytest.mark.parametrize("demand", [DRAW, EDIT, CHAT])
@pytest.mark.parametrize("ask", [Ask(), Ask("fp8"), Ask("fp32", "vit"), Ask(tensor=2)])
def test_what_an_error_names_fits_when_it_is_asked_for(card, demand, ask):
    """Tiles too, which cannot be asked for by name and come with `auto` alone."""
    said = refused(card, demand, ask)
    named = asked_for(said.partition("These would fit: ")[2])
    assert bool(named) == bool(said and "no other setup" not in said)
    for one in named:
        assert choose(SEVEN_B, Card.imagined(card), demand, one).fits


def test_what_was_asked_for_in_fewer_bits_is_named_with_offload():
    with pytest.raises(MemoryPlanError, match=r"precision fp8, offload auto \(.* on the host\)"):
        choose(SEVEN_B, Card.imagined("16"), DRAW, Ask("fp8"))


@pytest.mark.parametrize("precision", ["fp4", "int4", "float32", "NF4", "", ["nf4"]])
def test_precisions_that_are_none(precision):
    with pytest.raises(InputError, match="is unknown; use one of auto, bf16"):
        choose(SEVEN_B, Card.imagined("24"), DRAW, Ask(precision))


@pytest.fixture
def gpu(monkeypatch):
    """Makes loading believe in a GPU of some size."""

    def of(size: str) -> list[torch.device]:
        monkeypatch.setattr(Card, "of", classmethod(lambda cls, device: Card.imagined(size)))
        monkeypatch.setattr(loading, "pick_dtype", lambda name, device: Card.imagined(size).dtype)
        return [torch.device("cuda", 0)]

    return of


@pytest.mark.parametrize(
    ("card", "precision"), [("24", "bf16"), ("24", "bf11"), ("16", "int8"), ("12", "nf4"), ("8", "nf4"), ("8", "bf16")]
)
def test_what_is_loaded_with_auto_has_room_for_every_job(seven_b, gpu, card, precision):
    setup = setup_of(seven_b, Wanted(precision=precision, offload="auto"), gpu(card))
    for job in JOBS:
        demand = Demand.of(SEVEN_B, job)
        made = plan(SEVEN_B, Card.imagined(card), demand, setup)
        room = Room(SEVEN_B, setup.dtype, widened=made.card.widens(setup.packed), tile=setup.tile)
        room.free = lambda made=made: made.card.free - made.resident
        room.visitors = {part: made.weights.parts[part] for part in VISITS if part in setup.offload}
        room.check(demand)
        # For one job alone it is what `bagel plan` says of it.
        alone = setup_of(seven_b, Wanted(precision=precision, offload="auto", job=job), gpu(card))
        assert alone == plan_for(seven_b, Card.imagined(card), Ask(precision, "auto"), demand).setup


def test_a_setup_with_room_for_pictures_alone_is_loaded_all_the_same(seven_b, gpu):
    """A smaller edit may fit, and is looked at when it comes."""
    assert setup_of(seven_b, Wanted(precision="nf4"), gpu("12")).offload == ()
    assert setup_of(seven_b, Wanted(precision="nf4", job="edit"), gpu("12")).offload == ()
    assert setup_of(seven_b, Wanted(precision="nf4", offload="auto", job="edit"), gpu("12")).offload
    with pytest.raises(InputError, match="job 'paint' is unknown; use one of draw, edit, chat"):
        setup_of(seven_b, Wanted(job="paint"), gpu("80"))


def test_what_was_asked_for_does_not_change_what_else_would_fit(seven_b, gpu):
    with pytest.raises(MemoryPlanError, match=r"fp32 needs .*precision bf16, offload auto") as said:
        setup_of(seven_b, Wanted(precision="fp32"), gpu("24"))
    assert "fp32" not in str(said.value).partition("would fit")[2]


def test_auto_precision_takes_the_largest_that_fits():
    found = [
        choose(SEVEN_B, Card.imagined(card), DRAW, Ask("auto")).setup.precision for card in ("80", "24", "16-nofp8")
    ]
    assert found == ["bf16", "fp8", "nf4"]
    assert choose(SEVEN_B, Card.imagined("8"), DRAW, Ask("auto", "auto")).setup.streamed


def test_old_cards_compute_in_fp16():
    made = choose(SEVEN_B, Card.imagined("16-fp16"), DRAW, Ask("auto"))
    assert (made.setup.precision, made.setup.dtype) == ("nf4", torch.float16)
    assert made.weights.parts["vae"] == pytest.approx(
        2 * weights_of(SEVEN_B, torch.bfloat16, None).parts["vae"], rel=0.1
    )


def test_more_slots_move_less():
    moved = [choose(SEVEN_B, Card.imagined(card), DRAW, Ask("bf16", "auto")).moved for card in ("8", "12", "16", "24")]
    assert moved == sorted(moved, reverse=True)


def test_tiles_lower_the_decoding():
    whole = plan(SEVEN_B, H100, DRAW, Setup("nf4", torch.bfloat16, OFFLOADABLE, 0))
    tiled = plan(SEVEN_B, H100, DRAW, Setup("nf4", torch.bfloat16, OFFLOADABLE, 512))
    assert tiled.phases["decode"] < whole.phases["decode"] / 2


def test_demand_grows_with_the_job():
    def work(demand):
        return max(phases(SEVEN_B, demand, torch.bfloat16).values())

    assert work(SMALL) < work(DRAW) < work(EDIT)
    assert work(Demand.of(SEVEN_B, "draw", batch=4)) > 1.5 * work(DRAW)
    assert work(Demand.of(SEVEN_B, "chat", context=30_000)) > work(CHAT)
    assert kv_bytes(SEVEN_B, 1, torch.bfloat16) == kv_bytes(SEVEN_B, 256, torch.bfloat16)


def test_several_cards_share_the_layers():
    def setup(count):
        return [Card.imagined("16")] * count, DRAW, setup_for(Card.imagined("16"), "bf16")

    first, *others = split_peaks(SEVEN_B, *setup(4))
    assert first > max(others)
    assert sum([first, *others]) > 27.4 * GIB
    check_split(SEVEN_B, *setup(4))
    with pytest.raises(MemoryPlanError, match=r"over 2 devices needs .* on number 0"):
        check_split(SEVEN_B, *setup(2))
    small = [Card.imagined("6")] * 2
    with pytest.raises(MemoryPlanError, match=r"use more devices\.$"):  # no precision is small enough
        check_split(SEVEN_B, small, DRAW, setup_for(small[0], "nf4"))
    with pytest.raises(MemoryPlanError, match=r"use more devices\.$"):
        check_split(SEVEN_B, *setup(2), packed=True)
    with pytest.raises(MemoryPlanError, match=r"use more devices, or --precision (.*)\.$") as said:
        check_split(SEVEN_B, *setup(2))
    for precision in re.findall(r"fp8|int8|nf4", str(said.value)):
        check_split(SEVEN_B, [Card.imagined("16")] * 2, DRAW, setup_for(Card.imagined("16"), precision))


@pytest.mark.parametrize("size", ["", "x", "0", "24 apples", "-8", "1e9"])
def test_cards_that_are_none(size):
    with pytest.raises(InputError, match="card"):
        Card.imagined(size)


@pytest.mark.parametrize("offload", [5, True, "brain", ["vit", 1]])
def test_parts_that_are_none(offload):
    with pytest.raises(InputError, match="use auto or some of und, gen"):
        setup_of(CHECKPOINT, Wanted(offload=offload), [torch.device("cpu")])


def test_nothing_is_planned_on_the_cpu():
    found = setup_of(CHECKPOINT, Wanted(offload="auto", precision="auto"), [torch.device("cpu")])
    assert (found.precision, found.offload, found.slots) == ("fp32", (), 0)


def test_a_folder_on_a_card():
    made = plan_for(CHECKPOINT, Card.imagined("8"), Ask())
    assert made.fits
    assert made.demand == usual_demand(ModelConfig.from_folder(CHECKPOINT))
    lines = table(made).splitlines()
    assert lines[0] == "64 tokens read, a picture of 128 x 128 drawn, 2 branches of guidance"
    assert lines[1].startswith("und expert")
    assert any(line.startswith("expected peak") for line in lines)


def test_a_packed_folder_is_planned_as_it_is(tmp_path):
    Bagel.load(CHECKPOINT, device="cpu", precision="nf4").save(tmp_path)
    assert plan_for(tmp_path, Card.imagined("8"), Ask()).setup.precision == "nf4"
    with pytest.raises(InputError, match="packed in nf4"):
        plan_for(tmp_path, Card.imagined("8"), Ask("bf16"))


def test_of_a_packed_folder_its_own_precision_alone_is_named():
    """No other can be had of it."""
    with pytest.raises(MemoryPlanError) as said:
        choose(SEVEN_B, Card.imagined("12"), DRAW, Ask("fp8", packed=True))
    assert asked_for(str(said.value).partition("These would fit: ")[2]) == [Ask("fp8", "auto")]


@pytest.fixture
def seven_b(tmp_path: Path) -> Path:
    """A folder with the configuration and the tokenizer of the 7B model, and no weights: a plan needs none."""
    from bagel.tokens import Tokenizer

    for name, data in SEVEN_B.to_json().items():
        (tmp_path / name).write_text(json.dumps(data), encoding="utf-8")
    for name, text in Tokenizer.from_folder(CHECKPOINT).files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_command(seven_b, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bagel", "plan", "-m", str(seven_b), *words])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    code, said = run("--card", "24", "--precision", "fp8")
    assert code == 0
    assert "precision fp8" in said
    assert "16.8 GiB" in said
    code, said = run("--card", "8")
    assert code == 1
    assert "These would fit" in said
    code, said = run("--card", "8", "--precision", "auto", "--offload", "auto", "--json")
    made = json.loads(said)
    assert code == 0
    assert made["fits"]
    assert made["weights"]["gen"]["where"].startswith("host, streamed")
    assert run("--card", "24", "--height", "1000")[0] == 1
    assert run("--card", "80", "--height", "0") == (
        1, "bagel: height is 0; it must be a multiple of 16, up to 1024.\n"
    )  # fmt: skip
    assert run("--card", "24", "--precision", "fp4")[1].startswith("bagel: precision 'fp4' is unknown; use one of")
    assert run("--card", "24", "--offload", "brain")[0] == 1
    assert run()[0] == (0 if torch.cuda.is_available() else 1)


def test_the_published_model_is_planned_before_its_download(tmp_path, monkeypatch, capsys):
    for name in ("XDG_CACHE_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = ["bagel", "plan", "-m", published.NAME, "--card", "24", "--precision", "fp8", "--job", "chat"]
    monkeypatch.setattr(sys, "argv", words)
    cli.main()
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == f"{CHAT.read:,} tokens read, 512 written"
    assert "a card of 24 GB" in last
    monkeypatch.setattr(sys, "argv", ["bagel", "plan", "-m", "others/BAGEL", "--card", "24"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "bagel download others/BAGEL" in capsys.readouterr().err


# --- docs/memory.md --------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "memory.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d+) GB([^|]*)\| `([^`]+)` \| (\S+) \| (\S+) \| (\S+) \| (\S*) ?\|$", re.MULTILINE)


@pytest.mark.parametrize("row", ROW.findall(PAGE.partition("<!-- table:cards -->")[2]), ids=lambda row: row[0] + row[1])
def test_the_table_says_what_is_planned(row):
    size, more, flags, *cells, moved = row
    card = Card.imagined(size + ("-nofp8" if "fp8 units" in more else "-fp16" if "bf16" in more else ""))
    words = dict(pair.split(" ") for pair in flags.removeprefix("--").split(" --"))
    for job, cell in zip(("draw", "edit", "chat"), cells, strict=True):
        made = choose(SEVEN_B, card, Demand.of(SEVEN_B, job), Ask(words["precision"], words.get("offload")))
        near = {"rel": 0.04} if "*" in cell else {"abs": 0.051}  # measured, or planned
        assert float(cell.strip("*")) == pytest.approx(made.peak / GIB, **near), job
        if job == "draw":
            assert float(moved or 0) == pytest.approx(made.moved / GIB, abs=0.051)


def test_the_plan_on_the_page_is_what_the_command_prints(seven_b, monkeypatch, capsys):
    line, printed = re.search(r"^```console\n\$ bagel (.*)\n((?:.*\n)*?)```$", PAGE, re.MULTILINE).groups()
    words = [str(seven_b) if word == published.NAME else word for word in line.split()]
    monkeypatch.setattr(sys, "argv", ["bagel", *words])
    cli.main()
    assert capsys.readouterr().out == printed


def test_the_table_has_all_cards():
    assert {row[0] for row in ROW.findall(PAGE)} == {"40", "32", "24", "16", "12", "8"}


@pytest.mark.parametrize(
    ("stored", "has_bf16", "large", "wanted"),
    [
        (torch.bfloat16, True, 1, torch.bfloat16),
        (torch.bfloat16, False, 1, torch.float32),
        (torch.bfloat16, True, GIB, torch.float32),
        (torch.float32, True, 1, torch.float32),
    ],
)
def test_what_a_cpu_computes_in(tmp_path, monkeypatch, stored, has_bf16, large, wanted):
    """bfloat16 for large weights stored in it, where the processor has it; what is asked for stays."""
    checkpoints.save(tmp_path, checkpoints.load(CHECKPOINT, torch.device("cpu"), stored))
    monkeypatch.setattr(loading, "computes_bf16", lambda: has_bf16)
    monkeypatch.setattr(loading, "LARGE", large)
    assert setup_of(tmp_path, Wanted(), [torch.device("cpu")]).dtype is wanted
    assert setup_of(tmp_path, Wanted(dtype="fp32"), [torch.device("cpu")]).dtype is torch.float32
    assert setup_of(tmp_path, Wanted(precision="fp32"), [torch.device("cpu")]).dtype is torch.float32
