"""Parts on the host, layers that take turns, tiles, several devices: the numbers are those of the plain model."""

import pytest
import torch
from PIL import Image

from bagel import Bagel, InputError
from bagel import checkpoint as checkpoints
from bagel.infer.conversation import Runtime
from bagel.memory.place import arrange, placer, spread
from bagel.memory.plan import OFFLOADABLE, Setup
from bagel.memory.split import layer_devices, shares
from bagel.memory.stream import Stream, StreamedBlock, fetched, stream
from bagel.memory.tiles import Tiled
from bagel.model.config import Layers
from conftest import CHECKPOINT, error
from make_checkpoint import config, made

CPU = torch.device("cpu")
PICTURE = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
SMALL = {"height": 64, "width": 64, "num_timesteps": 3, "seed": 1}


def arranged(*offload, slots=3, precision=None):
    setup = Setup("fp32", torch.float32, tuple(offload), 0, slots)
    checkpoint = checkpoints.load(CHECKPOINT, CPU, torch.float32, precision=precision, place=placer(setup, CPU))
    runtime = Runtime.of(checkpoint)
    arrange(checkpoint, setup, CPU)
    return Bagel(runtime)


def outputs(bagel):
    """An edit and an answer: reading, drawing and writing in turn."""
    edited = bagel.edit(PICTURE, "make it blue", num_timesteps=3, seed=1)
    said = bagel.chat([PICTURE, "what is it?"], max_tokens=4)
    return edited.latent, said.token_ids, bagel.draw("a cube", **SMALL).latent


@pytest.fixture(scope="module")
def plain():
    return {precision: outputs(arranged(precision=precision)) for precision in (None, "nf4")}


@pytest.mark.parametrize("precision", [None, "nf4"])
@pytest.mark.parametrize(
    ("offload", "slots"),
    [(("und", "gen"), 2), (("und", "gen"), 4), (("gen",), 2), (("und",), 6), (("vit", "vae"), 0), (OFFLOADABLE, 3)],
)
def test_places_do_not_change_the_numbers(offload, slots, precision, plain):
    edited, said, drawn = outputs(arranged(*offload, slots=slots, precision=precision))
    assert torch.equal(edited, plain[precision][0])
    assert said == plain[precision][1]
    assert torch.equal(drawn, plain[precision][2])


def test_bagel_load_takes_offload_on_the_cpu(plain):
    bagel = Bagel.load(CHECKPOINT, device="cpu", offload="und,gen,embed")
    assert isinstance(bagel.runtime.checkpoint.model.decoder.layers[0], StreamedBlock)
    assert torch.equal(bagel.draw("a cube", **SMALL).latent, plain[None][2])
    with pytest.raises(InputError, match="load it whole"):
        bagel.save("nowhere")
    with pytest.raises(InputError, match="offload 'brain'"):
        Bagel.load(CHECKPOINT, device="cpu", offload="brain")


# --- streams ---------------------------------------------------------------------------------------------------


def streamed(num_layers, num_slots, parts=("und", "gen"), **llm):
    decoder = made(config(llm={"num_hidden_layers": num_layers, **llm})).model.decoder
    return decoder, stream(decoder, parts, num_slots, CPU)


def walk(made: Stream, drawing: bool) -> int:
    """One pass over all layers; -> bytes fetched in it."""
    before = made.fetched
    made.begin(drawing)
    for layer in range(len(made.layers)):
        made.need(layer)
        for unit in made._units(layer):
            slot = made._slot[id(unit)]
            assert slot.holds is unit
            assert torch.equal(slot.memory[: unit.size], unit.host)
            assert unit.bound is slot.memory
        made.done(layer)
    return made.fetched - before


@pytest.mark.parametrize(("num_layers", "num_slots"), [(8, 2), (8, 3), (8, 5), (7, 4), (8, 16), (5, 9)])
def test_every_layer_has_its_weights_when_it_runs(num_layers, num_slots):
    _, made_stream = streamed(num_layers, num_slots)
    unit = made_stream.layers[0]["und"].size
    count = 2 * num_layers
    walk(made_stream, True)
    for _ in range(3):
        assert walk(made_stream, True) == fetched(count, num_slots) * unit  # what stays is fetched once
    for drawing in (False, False, True, False, True):
        walk(made_stream, drawing)


def test_experts_that_fit_alone_are_swapped_once():
    _, made_stream = streamed(8, 8)
    unit = made_stream.layers[0]["und"].size
    assert walk(made_stream, False) == 8 * unit
    assert walk(made_stream, False) == 0
    walk(made_stream, True)
    assert walk(made_stream, False) <= 8 * unit
    assert walk(made_stream, False) == 0


@pytest.mark.parametrize("layers", [Layers.DENSE, Layers.MOE])
def test_experts_that_share_are_streamed_once(layers):
    decoder, made_stream = streamed(3, 2, layers=layers)
    assert ("gen" in made_stream.layers[0]) == (layers is Layers.MOE)
    whole = sum(p.numel() * 4 for p in decoder.layers.parameters())
    assert sum(unit.size for layer in made_stream.layers for unit in layer.values()) < whole * 1.3


# --- tiles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 40), (33, 70), (16, 90), (8, 8)])
def test_tiles_of_what_looks_at_one_place_are_exact(size):
    x = torch.randn(1, 3, *size)
    up = Tiled(torch.nn.Upsample(scale_factor=4), 16, 4, up=4)
    assert torch.allclose(up(x), torch.nn.functional.interpolate(x, scale_factor=4.0), atol=1e-6)


def test_tiles_of_what_shrinks_are_exact():
    x = torch.randn(1, 3, 64, 96)
    down = Tiled(torch.nn.AvgPool2d(8), 32, 8, down=8)
    assert torch.allclose(down(x), torch.nn.functional.avg_pool2d(x, 8), atol=1e-6)


def test_tiles_leave_no_seams():
    """Neighbours over a tile's edge differ no more than elsewhere in a smooth picture."""
    ramp = torch.linspace(0, 1, 256).expand(1, 1, 256, 256)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 5, padding=2, bias=False))
    torch.nn.init.constant_(net[0].weight, 1 / 25)
    with torch.inference_mode():
        out = Tiled(net, 64, 16)(ramp)[0, 0, 8:-8, 8:-8]
    assert out.diff(dim=1).abs().max() < 4 * ramp.diff(dim=3).max()


# --- several devices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_layers_over_several_devices(count, plain):
    """Two names of the CPU stand for two devices: what is kept is kept apart, what moves is moved."""
    devices = [torch.device("cpu", index) for index in range(count)]
    bagel = arranged()
    spread(bagel.runtime.checkpoint, devices)
    edited, said, drawn = outputs(bagel)
    assert error(edited, plain[None][0]) < 1e-4
    assert said == plain[None][1]
    assert error(drawn, plain[None][2]) < 1e-4
    assert len(bagel.runtime.engine.new_context()._store.tensors) == count


def test_shares_of_layers():
    assert shares(28, 3) == [9, 9, 10]
    assert shares(4, 4) == [1, 1, 1, 1]
    assert len(layer_devices(28, [torch.device("cpu", i) for i in range(5)])) == 28
    with pytest.raises(InputError, match="4 layers"):
        shares(4, 5)


def test_devices_with_commas():
    bagel = Bagel.load(CHECKPOINT, device="cpu,cpu")
    assert bagel.draw("a cube", **SMALL).image.size == (64, 64)
    with pytest.raises(InputError, match="choose one"):
        Bagel.load(CHECKPOINT, device="cpu,cpu", offload="vae")
