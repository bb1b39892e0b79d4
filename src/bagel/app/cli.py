"""The command line: one short function a command. Results go to stdout, everything else to stderr.

Exit codes: 0; 1 with one line for what a user can put right; 2 for a wrong call; 130 for Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from bagel.app.knobs import flags_of, options_from
from bagel.errors import BagelError, InputError
from bagel.options import ImageOptions, TextOptions, settle
from bagel.version import __version__

if TYPE_CHECKING:
    from bagel.infer.pipeline import Bagel
    from bagel.model.config import ModelConfig

app = App(
    name="bagel",
    help="BAGEL: one model that draws, edits, answers and thinks.",
    version=__version__,
    help_format="plaintext",
)


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    model: Annotated[str, Parameter(name=["--model", "-m"], env_var="BAGEL_MODEL")] = "mini"
    """A folder in the official layout, mini (the embedded model), or a hub name downloaded before."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: str = "auto"
    """auto, bf16, fp16, fp32."""
    precision: str | None = None
    """What the weights are kept in: bf16, fp16, fp32, fp8. Wins over --dtype."""

    def config(self) -> ModelConfig:
        """The sizes alone, so that options are checked before a large model is loaded."""
        from bagel.checkpoint import read_config
        from bagel.infer.pipeline import find_model

        return read_config(find_model(self.model))

    def load(self) -> Bagel:
        from bagel.app.show import loading, say
        from bagel.infer.pipeline import Bagel, find_model, is_random

        if is_random(find_model(self.model)):
            say("The embedded model is not trained yet: its weights are random, and so is what it makes.")
        with loading(self.model) as report:
            return Bagel.load(self.model, device=self.device, dtype=self.dtype, precision=self.precision, report=report)


class CallError(Exception):
    """A call that the parser let pass and should not have."""


# "-" is a word here (stdin), so words may begin with a hyphen; `_words` refuses the ones that look like flags.
Word = Annotated[str, Parameter(allow_leading_hyphen=True)]
Model = Annotated[ModelFlags, Parameter(name="*")]
ImageFlags = flags_of(ImageOptions, "Drawing")
TextFlags = flags_of(TextOptions, "Writing")
Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Json = Annotated[bool, Parameter(name="--json", negative="")]
Count = Annotated[int, Parameter(name=["--count", "-n"])]


@app.command
def draw(
    prompt: Word,
    *,
    out: Out = Path("out.png"),
    count: Count = 1,
    json: Json = False,
    model: Model | None = None,
    options: ImageFlags | None = None,  # type: ignore[valid-type]
) -> None:
    """Draw a picture: bagel draw "a red cube" -o cube.png

    Parameters
    ----------
    prompt:
        What to draw; - reads it from stdin.
    out:
        Picture to write (.png, .jpg, .webp); a PNG carries its settings.
    count:
        Pictures to draw, in one batch, with seeds one apart.
    json:
        One JSON object on stdout.
    """
    _make_pictures("draw", [], _words([prompt])[0], out, count, json, model, options_from(ImageOptions, options))


@app.command
def edit(
    *images_and_instruction: Word,
    out: Out = Path("out.png"),
    count: Count = 1,
    json: Json = False,
    model: Model | None = None,
    options: ImageFlags | None = None,  # type: ignore[valid-type]
) -> None:
    """Change pictures as an instruction says: bagel edit cat.png "make it a watercolour"

    Parameters
    ----------
    images_and_instruction:
        One or several pictures, then the instruction; - reads it from stdin.
    out:
        Picture to write.
    count:
        Pictures to make, in one batch, with seeds one apart.
    json:
        One JSON object on stdout.
    """
    if len(images_and_instruction) < 2:
        raise CallError('edit needs a picture and an instruction, like: bagel edit cat.png "make it night".')
    *images, instruction = _words(images_and_instruction)
    _make_pictures("edit", images, instruction, out, count, json, model, options_from(ImageOptions, options))


@app.command
def chat(
    *inputs: Word,
    json: Json = False,
    model: Model | None = None,
    options: TextFlags | None = None,  # type: ignore[valid-type]
) -> None:
    """Answer a question, about pictures or without: bagel chat chart.png "What is the trend?"

    Parameters
    ----------
    inputs:
        Pictures and text in any order; - reads text from stdin.
    json:
        One JSON object on stdout instead of the text as it comes.
    """
    from bagel.app import show
    from bagel.infer.engine import Finished
    from bagel.infer.inputs import as_inputs
    from bagel.infer.text import TextPiece

    chosen = options_from(TextOptions, options)
    source = model or ModelFlags()
    settle(chosen, "chat", source.config().presets)
    parts = as_inputs(_words(inputs))
    bagel = source.load()
    for event in bagel.stream(parts, output="text", text_options=chosen):
        if isinstance(event, TextPiece) and not json:
            sys.stdout.write(event.text)
            sys.stdout.flush()
        elif isinstance(event, Finished):
            show.print_json(show.as_json(event.result)) if json else sys.stdout.write("\n")


@app.command
def run(
    script: Path,
    *,
    out: Out = Path("out"),
    json: Json = False,
    model: Model | None = None,
) -> None:
    """Run a script of turns, text and pictures in and out: bagel run story.json -o story

    Parameters
    ----------
    script:
        JSON, a list of turns: {"text": ...}, {"image": PATH}, {"draw": {...}}, {"say": {...}}, {"continue": {...}}.
    out:
        Folder for the pictures, texts and transcript.json.
    json:
        The transcript as one JSON object on stdout.
    """
    from bagel.app import show
    from bagel.app.script import load_script, run_script

    turns = load_script(script)
    folder = show.check_folder(out)
    bagel = (model or ModelFlags()).load()
    with show.working() as progress:
        transcript = run_script(bagel, turns, script.parent, folder, progress)
    show.print_json(transcript) if json else print(folder / "transcript.json")


@app.command
def demo(*, out: Out = Path("out"), model: Model | None = None) -> None:
    """Draw, edit, answer, think and continue with the embedded model; one contact sheet shows it all.

    Parameters
    ----------
    out:
        Folder for the pictures and the sheet.
    """
    from bagel.app import show
    from bagel.app.demo import run_demo

    folder = show.check_folder(out)
    print(run_demo((model or ModelFlags()).load(), folder))


@app.command
def info(*, json: Json = False, model: Model | None = None) -> None:
    """Say what a model folder holds: sizes, files, numbers of parameters; nothing is loaded.

    Parameters
    ----------
    json:
        One JSON object on stdout.
    """
    from bagel.app import show
    from bagel.app.info import describe, table

    facts = describe((model or ModelFlags()).model)
    show.print_json(facts) if json else print(table(facts))


@app.command
def download(
    name: str,
    *,
    source: Annotated[Literal["huggingface", "modelscope"], Parameter(name="--from")] = "huggingface",
    to: Path | None = None,
) -> None:
    """Fetch a model from a hub, resuming where it stopped: bagel download ByteDance-Seed/BAGEL-7B-MoT

    Parameters
    ----------
    name:
        The model's name on the hub.
    source:
        The hub.
    to:
        Folder to put it in; models/NAME if not given.
    """
    from bagel.hub import download as fetch

    print(fetch(name, source=source, to=to or Path("models") / name.split("/")[-1]))


def _make_pictures(
    job: Literal["draw", "edit"],
    images: list[str],
    prompt: str,
    out: Path,
    count: int,
    json: bool,
    model: ModelFlags | None,
    options: ImageOptions,
) -> None:
    """Draws or edits `count` pictures as one batch, writes them and says where they are."""
    from bagel.app import show
    from bagel.infer.inputs import check_size, checked_text, open_image

    prompt, source = checked_text(prompt), model or ModelFlags()
    show.check_out(out)
    if count < 1:
        raise InputError(f"count is {count}; ask for at least one picture.")
    config = source.config()
    check_size(settle(options, job, config.presets), config)
    opened = [open_image(path) for path in images]
    bagel = source.load()
    several: Any = {} if count == 1 else {"seed": _seeds(options, count)}
    with show.working() as progress:
        if job == "draw":
            results = bagel.draw([prompt] * count, options, progress=progress, **several)
        else:
            results = bagel.edit([opened] * count, [prompt] * count, options, progress=progress, **several)
    paths = [out] if count == 1 else [out.with_stem(f"{out.stem}-{i + 1}") for i in range(count)]
    for path, result in zip(paths, results, strict=True):
        assert result.image is not None
        settings = show.settings_of(options, job=job, prompt=prompt, model=source.model)
        show.save_image(result.image, path, {**settings, "seed": result.seed})
        if result.text and not json:
            show.say(result.text)
        if not json:
            print(path)
    if json:
        done = [show.as_json(r, path=str(path)) for r, path in zip(results, paths, strict=True)]
        show.print_json(done[0] if count == 1 else {"pictures": done})


def _seeds(options: ImageOptions, count: int) -> list[int]:
    from bagel.infer.jobs import seed_of

    first = seed_of(options)
    return [first + i for i in range(count)]


def _words(words: Sequence[str]) -> list[str]:
    """What was handed in, with - read from stdin. Raises CallError for a flag that does not exist."""
    for word in words:
        if word.startswith("-") and word != "-" and " " not in word:
            raise CallError(f"unknown option: {word}. (Text that begins with a hyphen can come by stdin: -)")
    return [sys.stdin.read().strip() if word == "-" else word for word in words]


def main() -> None:
    """Entry point of the `bagel` command."""
    try:
        app(exit_on_error=False, print_error=False)
    except (CycloptsError, CallError) as error:
        _fail(f"{error} See `bagel --help`.", 2)
    except BagelError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("stopped.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"bagel: {' '.join(message.split())}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
