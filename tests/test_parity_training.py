"""The official training pack through our pack and forward: indexes, masks, losses and gradients."""

import pytest
import torch
import torch.nn.functional as F

from bagel import checkpoint
from bagel.images import patchify, resize, to_pixels
from bagel.model.attention import PackAttention
from bagel.pack import LatentPart, TextPart, VitPart, pack
from conftest import CHECKPOINT, error

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def setup(golden, tensors, pictures):
    """The checkpoint, trainable, and the pack built from `train_samples`."""
    loaded = checkpoint.load(CHECKPOINT, CPU, torch.float32)
    builder = Builder(loaded, tensors, pictures, golden["train_patchified_vae_latent_shapes"])
    samples = [[builder.part(item) for item in sample] for sample in golden["train_samples"]]
    loaded.model.requires_grad_(True)
    return loaded, pack(samples, builder.rules)


class Builder:
    """Parts of the official sample plans. Latents come from the padded batch, as upstream encodes them."""

    def __init__(self, loaded, tensors, pictures, shapes):
        self.loaded, self.tensors, self.pictures = loaded, tensors, pictures
        tokenizer, config = loaded.tokenizer, loaded.config
        from bagel.infer.conversation import Runtime

        self.rules = Runtime.of(loaded).engine.rules
        self.tokenizer, self.images = tokenizer, config.images
        latents = loaded.vae.encode(tensors["train/padded_images"])
        self.clean = [patchify(x[:, : 2 * h, : 2 * w], 2) for x, (h, w) in zip(latents, shapes, strict=True)]
        self.shapes, self.count, self.row = shapes, 0, 0

    def part(self, item):
        if item["type"] == "text":
            return TextPart(self.tokenizer.segment(item["text"]))
        if item["type"] == "vit_image":
            pixels = to_pixels(resize(self.pictures[item["image"]], self.images.vit))
            return VitPart(patchify(pixels, 14), (pixels.shape[1] // 14, pixels.shape[2] // 14))
        return self.latent(item)

    def latent(self, item):
        clean, grid = self.clean[self.count], tuple(self.shapes[self.count])
        rows = slice(self.row, self.row + len(clean))
        self.count, self.row = self.count + 1, rows.stop
        draw = self.tensors["train/packed_timesteps"][rows][0]
        shift = self.loaded.config.timestep_shift
        t = torch.sigmoid(draw)
        t = shift * t / (1 + (shift - 1) * t)
        noised = bool(item.get("loss"))
        in_clip = "frame_delta" in item or not item.get("split_start", True)
        return LatentPart(
            (1 - t) * clean + t * self.tensors["train/noise"][rows],
            grid,
            float(t),
            noised,
            advance=item.get("frame_delta", 0 if noised else 1),
            joined=not item.get("split_start", True),
            hidden=False if in_clip else None,
        )


def test_layout(setup, golden, tensors):
    _, inputs = setup
    layout, num_und = inputs.layout, inputs.layout.num_und
    reading = layout.order.argsort()
    assert torch.equal(layout.position[reading], tensors["train/packed_position_ids"])
    assert torch.equal(inputs.text_ids, tensors["train/packed_text_ids"])
    assert torch.equal(layout.order[:num_und][layout.text_rows], tensors["train/packed_text_indexes"])
    assert torch.equal(layout.order[:num_und][layout.vit_rows], tensors["train/packed_vit_token_indexes"])
    assert torch.equal(layout.order[num_und:], tensors["train/packed_vae_token_indexes"])
    assert torch.equal(inputs.vit_index, tensors["train/packed_vit_position_ids"])
    assert torch.equal(inputs.latent_index, tensors["train/packed_latent_position_ids"])
    assert torch.equal(inputs.patches, tensors["train/packed_vit_tokens"])
    assert list(inputs.vit_lengths) == tensors["train/vit_token_seqlens"].tolist()


def test_masks(setup, golden, tensors):
    from test_parity_parts import in_reading_order

    _, inputs = setup
    mask, start = in_reading_order(inputs.layout), 0
    seen = torch.zeros_like(mask)
    for number, length in enumerate(golden["train_sample_lens"]):
        block = slice(start, start + length)
        assert torch.equal(mask[block, block], tensors[f"train/mask/{number}"].bool())
        seen[block, block] = True
        start += length
    assert not mask[~seen].any()


def test_losses_and_gradients(setup, golden, tensors):
    loaded, inputs = setup
    model, num_und = loaded.model, inputs.layout.num_und
    und, gen = model(inputs, PackAttention(inputs.layout))
    stored = inputs.layout.order.argsort()
    ce = F.cross_entropy(
        model.logits(und[stored[tensors["train/ce_loss_indexes"]]]), tensors["train/packed_label_ids"], reduction="none"
    )
    rows = stored[tensors["train/mse_loss_indexes"]] - num_und
    noised, t = inputs.latents[rows], inputs.times[inputs.image_of[rows]][:, None]
    noise = tensors["train/noise"][rows]
    target = noise - (noised - t * noise) / (1 - t)
    mse = (model.velocity(gen[rows]) - target) ** 2
    assert abs(ce.mean().item() / golden["train_loss"]["ce_mean"] - 1) < 1e-5
    assert abs(mse.mean().item() / golden["train_loss"]["mse_mean"] - 1) < 1e-5
    assert error(ce, tensors["train/ce"]) < 1e-5
    assert error(mse, tensors["train/mse"]) < 1e-5

    (ce.mean() + mse.mean()).backward()
    parameters, plan = dict(model.named_parameters()), checkpoint.pieces(model)
    names = [key.removeprefix("train/grad/") for key in tensors if key.startswith("train/grad/")]
    assert len(names) == 14
    for name in names:
        piece = plan[name]
        gradient = parameters[piece.parameter].grad[piece.start :][: piece.rows]
        wanted = tensors[f"train/grad/{name}"]
        assert error(gradient[: len(wanted)], wanted) < 2e-5, name
