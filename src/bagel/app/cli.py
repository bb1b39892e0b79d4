"""The command line: one short function a command. Results go to stdout, everything else to stderr.

Exit codes: 0; 1 with one line for what a user can put right; 2 for a wrong call; 130 for Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from bagel.app import bench_cli, eval_cli, memory_cli, train_cli
from bagel.app.knobs import flags_of, options_from, whole_number
from bagel.app.serve_flags import ServeFlags
from bagel.errors import BagelError, InputError
from bagel.options import ImageOptions, TextOptions, settle
from bagel.version import __version__

if TYPE_CHECKING:
    from bagel.app.server.settings import Settings
    from bagel.infer.pipeline import Bagel
    from bagel.model.config import ModelConfig

app = App(
    name="bagel",
    help="BAGEL: one model that draws, edits, answers and thinks.",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    model: Annotated[str, Parameter(name=["--model", "-m"], env_var="BAGEL_MODEL")] = "mini"
    """A folder in the official layout, mini (the embedded model), or a hub name downloaded before."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps, or several GPUs: cuda:0,cuda:1."""
    gpus: Annotated[int | None, Parameter(converter=whole_number)] = None
    """The first so many GPUs together; with --device cpu, so many processes. See --parallel."""
    parallel: str | None = None
    """How several devices share the work: auto, branches, rows, tensor, a product like branches=2,tensor=2, or layers.
    auto with --gpus, else layers."""
    dtype: str = "auto"
    """auto, bf16, fp16, fp32."""
    precision: str | None = None
    """What the weights are kept in: bf16, fp16, fp32, bf11, fp8, int8, nf4, or auto, the first that fits. Wins over
    --dtype."""
    offload: str | None = None
    """Parts kept on the host: some of und,gen,vit,vae,embed,head, or auto, as few as need be."""

    def config(self) -> ModelConfig:
        """The sizes alone, so that options are checked before a large model is loaded."""
        from bagel.checkpoint import read_config
        from bagel.infer.pipeline import find_model

        return read_config(find_model(self.model))

    def load(self) -> Bagel:
        from bagel.app.show import loading

        with loading(self.model) as report:
            return self.load_telling(report)

    def load_telling(self, report: Callable[[int, int], None]) -> Bagel:
        """report: called with (bytes read, bytes in all)."""
        from bagel.infer.pipeline import Bagel

        return Bagel.load(**self.arguments(), report=report)

    def arguments(self) -> dict[str, Any]:
        """Those of `Bagel.load`, as plain values, which also another process can be given."""
        device, parallel = self._several()
        return {
            "model": self.model,
            "device": device,
            "dtype": self.dtype,
            "precision": self.precision,
            "offload": self.offload,
            "parallel": parallel,
        }

    def _several(self) -> tuple[str, str | None]:
        """Devices, and how they share the work."""
        if self.gpus is None:
            return self.device, self.parallel
        if self.gpus < 1 or self.device not in ("auto", "cuda", "cpu"):
            raise InputError(f"--gpus {self.gpus} with --device {self.device}: give a number, or the devices by name.")
        names = ["cpu"] * self.gpus if self.device == "cpu" else [f"cuda:{index}" for index in range(self.gpus)]
        return ",".join(names), self.parallel or "auto"

    def caution(self) -> str:
        """Said with a result, not before: an error is to be the only line. -> what was said, if anything."""
        from bagel.app.show import say
        from bagel.infer.pipeline import find_model, is_random

        if not is_random(find_model(self.model)):
            return ""
        said = "The embedded model is not trained yet: its weights are random, and so is what it makes."
        say(said)
        return said


class CallError(Exception):
    """A call that the parser let pass and should not have."""


# "-" is a word here (stdin), so words may begin with a hyphen; `_words` refuses the ones that look like flags.
Word = Annotated[str, Parameter(allow_leading_hyphen=True)]
Model = Annotated[ModelFlags, Parameter(name="*")]
DrawFlags = flags_of(ImageOptions, "draw", "Drawing")
EditFlags = flags_of(ImageOptions, "edit", "Drawing")
ChatFlags = flags_of(TextOptions, "chat", "Writing")
Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Json = Annotated[bool, Parameter(name="--json", negative="")]
Count = Annotated[int, Parameter(name=["--count", "-n"], converter=whole_number)]


@app.command
def draw(
    prompt: Word,
    *,
    out: Out = Path("out.png"),
    count: Count = 1,
    json: Json = False,
    model: Model | None = None,
    options: DrawFlags | None = None,  # type: ignore[valid-type]
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
    from bagel.app.pictures import make_pictures

    prompt, source = _words([prompt])[0], model or ModelFlags()
    make_pictures("draw", [], prompt, out, count, json, source, options_from(ImageOptions, options))


@app.command
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
    from bagel.app.pictures import make_pictures
    from bagel.infer.inputs import is_picture_file

    if len(images_and_instruction) < 2:
        raise CallError('edit needs a picture and an instruction, like: bagel edit cat.png "make it night".')
    *images, instruction = _words(images_and_instruction)
    if images_and_instruction[-1] != "-" and is_picture_file(instruction):
        raise CallError(f"the last word, {instruction}, is a picture; the instruction comes after the pictures.")
    source = model or ModelFlags()
    make_pictures("edit", images, instruction, out, count, json, source, options_from(ImageOptions, options))


@app.command
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
    parts = as_inputs(_words(inputs))
    events = source.load().stream(parts, output="text", text_options=chosen)
    for number, event in enumerate(events):
        if number == 0:
            source.caution()
        if isinstance(event, TextPiece) and not json:
            sys.stdout.write(event.text)
            sys.stdout.flush()
        elif isinstance(event, Finished):
            show.print_json(show.as_json(event.result)) if json else sys.stdout.write("\n")


@app.command
def run(
    script: Path | None = None,
    *,
    batch: Path | None = None,
    active: Annotated[int, Parameter(converter=whole_number)] = 16,
    workers: Annotated[int | None, Parameter(converter=whole_number)] = None,
    out: Out = Path("out"),
    json: Json = False,
    model: Model | None = None,
) -> None:
    """Run a script of turns, text and pictures in and out: bagel run story.json -o story

    Or many requests of a file, going on where a run was stopped: bagel run --batch prompts.jsonl -o pictures

    Parameters
    ----------
    script:
        JSON, a list of turns: {"text": ...}, {"image": PATH}, {"draw": {...}}, {"say": {...}}, {"continue": {...}}.
    batch:
        Instead of a script, a file with a JSON object a line: {"job": "draw", "prompt": ..., "seed": ...}; jobs are
        draw, edit (with "images": [PATH]) and chat.
    active:
        Requests of a batch at a time, on each copy of the model.
    workers:
        Copies of the model for a batch, each in a process and on GPUs of its own, through Ray; RAY_ADDRESS names a
        cluster. If not given, one in this process.
    out:
        Folder for the pictures, texts and transcript.json, or results.jsonl of a batch.
    json:
        The transcript as one JSON object on stdout.
    """
    from bagel.app import show
    from bagel.app.script import load_script, run_script

    if (script is None) == (batch is None):
        raise CallError("give a script, or --batch with a file of requests.")
    if batch is not None:
        return _run_batch(batch, out, active, workers, model or ModelFlags())
    if workers is not None:
        raise CallError("--workers is for a --batch.")
    assert script is not None
    source = model or ModelFlags()
    turns = load_script(script, source.config())
    folder = show.check_folder(out)
    bagel = source.load()
    with show.working() as progress:
        transcript = run_script(bagel, turns, script.parent, folder, progress)
    source.caution()
    show.print_json(transcript) if json else print(folder / "transcript.json")
    return None


def _run_batch(batch: Path, out: Path, active: int, workers: int | None, source: ModelFlags) -> None:
    from bagel.app import show
    from bagel.app.batch import read_lines, run_batch

    if active < 1 or (workers is not None and workers < 1):
        raise InputError(f"active is {active}, workers {workers}; they must be at least 1.")
    read_lines(batch)
    folder = show.check_folder(out)
    bagel = None if workers else source.load()
    with show.progress_bar() as bar:
        task = bar.add_task("requests", total=None)

        def progress(count: int, total: int) -> None:
            bar.update(task, completed=count, total=total)

        if bagel is None:
            done = _on_workers(batch, folder, active, workers or 1, source, progress)
        else:
            done = run_batch(bagel, batch, folder, active=active, progress=progress)
    source.caution()
    print(done)


def _on_workers(
    batch: Path, folder: Path, active: int, count: int, source: ModelFlags, progress: Callable[[int, int], None]
) -> Path:
    from bagel.app.replicas.setup import check_installed

    check_installed()
    from bagel.app.replicas.batch import Workers, run_batch_on_workers

    source.config()
    workers = Workers(count=count, active=active)
    return run_batch_on_workers(source.arguments(), batch, folder, workers, progress=progress)


@app.command
def demo(*, out: Out = Path("out"), model: Model | None = None) -> None:
    """Draw, edit, answer, think, predict and navigate with the embedded model; a checker judges, a sheet shows it all.

    Parameters
    ----------
    out:
        Folder for the pictures and the sheet.
    """
    from bagel.app import show
    from bagel.app.demo import run_demo

    folder, source = show.check_folder(out), model or ModelFlags()
    bagel = source.load()
    print(run_demo(bagel, folder, source.caution()))


@app.command
def serve(
    *,
    flags: Annotated[ServeFlags | None, Parameter(name="*")] = None,
    model: Model | None = None,
) -> None:
    """Serve the model as an OpenAI-compatible API, until Ctrl-C: bagel serve --port 8000"""
    chosen, source = flags or ServeFlags(), model or ModelFlags()
    try:
        from bagel.app.server.serve import serve as run_server
    except ModuleNotFoundError as error:
        raise InputError(f"the server needs {error.name}; pip install 'bagel-mot[serve]'.") from None
    settings = chosen.settings(source.model)
    if chosen.replicas is not None:
        return _serve_replicas(chosen, settings, source)
    bagel = source.load()
    source.caution()
    run_server(bagel, settings, host=chosen.host, port=chosen.port, threads=chosen.threads)
    return None


def _serve_replicas(flags: ServeFlags, settings: Settings, source: ModelFlags) -> None:
    from bagel.app import show
    from bagel.app.replicas.setup import check_installed

    check_installed()
    from bagel.app.replicas.launch import serve_replicas

    assert flags.replicas is not None
    source.config()
    with show.progress_bar() as bar:
        task = bar.add_task("replicas", total=flags.replicas)

        def started() -> None:
            bar.stop()
            source.caution()

        serve_replicas(
            source.arguments(),
            settings,
            flags.replicas,
            host=flags.host,
            port=flags.port,
            threads=flags.threads,
            report=lambda ready, total: bar.update(task, completed=ready, total=total),
            started=started,
        )


@app.command
def ui(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(converter=whole_number)] = 7860,
    out: Out = Path("out"),
    model: Model | None = None,
) -> None:
    """Open the page in the browser: draw, edit, ask, converse: bagel ui

    Parameters
    ----------
    host:
        Address to listen on; 0.0.0.0 lets other machines in.
    port:
        Port to listen on.
    out:
        Folder for the pictures made; each carries its settings.
    """
    from bagel.app import show
    from bagel.app.ui.app import Place, serve

    source = model or ModelFlags()
    place = Place(host, port, show.check_folder(out))
    serve(source.model, source.config(), source.load_telling, place)


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


def _words(words: Sequence[str]) -> list[str]:
    """What was handed in, with - read from stdin. Raises CallError for a flag that does not exist."""
    for word in words:
        if word.startswith("-") and word != "-" and " " not in word:
            raise CallError(f"unknown option: {word}. (Text that begins with a hyphen can come by stdin: -)")
    return [_stdin() if word == "-" else word for word in words]


def _stdin() -> str:
    from bagel.infer.inputs import Text

    try:
        return Text(sys.stdin.read().strip())
    except UnicodeDecodeError as error:
        raise InputError(f"what stdin gives is no text ({error}); send it as UTF-8.") from None


memory_cli.register(app)
train_cli.register(app)
eval_cli.register(app)
bench_cli.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `bagel` command. arguments: instead of the process's own."""
    warnings.filterwarnings("ignore", module="PIL")  # our own limits and errors say it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know the answer's letters
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except (CycloptsError, CallError) as error:
        _fail(f"{error} See `bagel --help`.", 2)
    except BagelError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("stopped.", 130)
    except BrokenPipeError:
        _drop_stdout()
        sys.exit(1)
    except OSError as error:
        _drop_stdout()
        _fail(f"writing failed: {error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            raise
        _fail(
            f"the job does not fit into memory ({' '.join(str(error).split())[:200]}); draw smaller or fewer pictures, "
            "shorten the input, or keep the weights in fewer bits (--precision).",
            1,
        )


def _drop_stdout() -> None:
    """Nobody reads it any more: what is still buffered must not fail once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"bagel: {' '.join(message.split())}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
