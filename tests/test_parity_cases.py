"""The official code's 22 whole generations: contexts, guidance, schedule, think, TaylorSeer, decoding."""

import numpy as np
import pytest

from bagel.infer.engine import Finished
from conftest import GOLDEN, error


def arguments(case, noise):
    """A case's parameters under our names."""
    given = dict(case["params"])
    given["max_tokens"] = given.pop("max_think_token_n")
    given["cfg_image_scale"] = given.pop("cfg_img_scale", None)
    given.setdefault("cfg_renorm_min", 0.0)
    given["height"], given["width"] = given.pop("image_shapes", (None, None))
    given["step_cache"] = "taylorseer" if given.pop("enable_taylorseer", False) else None
    given["cfg_interval"] = tuple(given["cfg_interval"])
    return {**given, "noise": noise}


def inputs(case):
    return [GOLDEN / "images" / f"{x[1:]}.png" if x.startswith("@") else x for x in case["inputs"]]


def finished(events):
    return next(event.result for event in events if isinstance(event, Finished))


@pytest.mark.parametrize("number", range(22))
def test_case(bagel, golden, tensors, number):
    case = golden["cases"][number]
    if case["params"].get("understanding_output"):
        params = case["params"]
        result = bagel.chat(inputs(case), max_tokens=params["max_think_token_n"], think=params.get("think", False))
    else:
        options = arguments(case, tensors[f"case/{number}/noise"])
        result = finished(bagel.stream(inputs(case), output="image", **options))
        assert error(result.latent, tensors[f"case/{number}/latent"]) < 1e-5
        levels = np.abs(np.array(result.image).astype(int) - tensors[f"case/{number}/image_u8"].numpy())
        assert levels.max() <= 1
        assert (levels > 0).mean() <= 1e-3
    assert result.token_ids == case.get("text_token_ids")
    assert result.text == case.get("text")
