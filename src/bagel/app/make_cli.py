"""The commands that ask for one thing: draw, edit, chat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from bagel.app.knobs import flags_of, options_from, whole_number
from bagel.app.model_flags import Model, ModelFlags
from bagel.app.words import CallError, Json, Out, Word, words_of
from bagel.options import ImageOptions, TextOptions, settle

DrawFlags = flags_of(ImageOptions, "draw", "Drawing")
EditFlags = flags_of(ImageOptions, "edit", "Drawing")
ChatFlags = flags_of(TextOptions, "chat", "Writing")
Count = Annotated[int, Parameter(name=["--count", "-n"], converter=whole_number)]


def register(app: App) -> None:
    """Adds the commands to the command line."""
    app.command(draw)
    app.command(edit)
    app.command(chat)


def draw(
    prompt: Word,
    *,
    out: Out = Path("out.png"),
    count: Count = 1,
    json: Json = False,
    model: Model | None = None,
    options: DrawFlags | None = None,  # type: ignore[valid-type]
) -> None:
    """Draw a picture: bagel draw "a red square" -o square.png

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
    from bagel.app.pictures import Wish, make_pictures

    (text,), chosen = words_of([prompt]), options_from(ImageOptions, options)
    make_pictures(Wish(job="draw", prompt=text, count=count, options=chosen), model or ModelFlags(), out, json=json)


def edit(
    *images_and_instruction: Word,
    out: Out = Path("out.png"),
    count: Count = 1,
    json: Json = False,
    model: Model | None = None,
    options: EditFlags | None = None,  # type: ignore[valid-type]
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
    from bagel.app.pictures import Wish, make_pictures
    from bagel.infer.inputs import is_picture_file

    if len(images_and_instruction) < 2:
        raise CallError('edit needs a picture and an instruction, like: bagel edit cat.png "make it night".')
    *images, instruction = words_of(images_and_instruction)
    if images_and_instruction[-1] != "-" and is_picture_file(instruction):
        raise CallError(f"the last word, {instruction}, is a picture; the instruction comes after the pictures.")
    chosen = options_from(ImageOptions, options)
    wish = Wish(job="edit", prompt=instruction, images=images, count=count, options=chosen)
    make_pictures(wish, model or ModelFlags(), out, json=json)


def chat(
    *inputs: Word,
    json: Json = False,
    model: Model | None = None,
    options: ChatFlags | None = None,  # type: ignore[valid-type]
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

    if not inputs:
        raise CallError('chat needs a question, like: bagel chat chart.png "What is the trend?"')
    chosen = options_from(TextOptions, options)
    source = model or ModelFlags()
    settle(chosen, "chat", source.config().presets)
    parts = as_inputs(words_of(inputs))
    events = source.load("chat").stream(parts, output="text", text_options=chosen)
    for event in events:
        if isinstance(event, TextPiece) and not json:
            sys.stdout.write(event.text)
            sys.stdout.flush()
        elif isinstance(event, Finished):
            show.print_json(show.as_json(event.result)) if json else sys.stdout.write("\n")
