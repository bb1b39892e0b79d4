"""Every source reads every row, and so do all consumers together."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bagel.data.config import DatasetConfig
from bagel.data.order import Todo, share_again
from bagel.data.sources import Source, open_source
from bagel.errors import InputError

from .make import png, t2i_rows, write_jsonl, write_parquet


def source(path: Any, wanted: tuple[str, ...] = ("image", "captions", "text"), **own: Any) -> Source:
    paths = tuple(map(str, path)) if isinstance(path, list) else (str(path),)
    return open_source(DatasetConfig(name="d", recipe="t2i", path=paths, **own), wanted)


def texts(of: Source, column: str = "text") -> list[Any]:
    return [row[column] for block in range(len(of.block_sizes)) for row in of.read(block)]


def write_tar(path: Path, rows: list[dict[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for number, members in enumerate(rows):
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{number:03}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def test_parquet_row_groups(tmp_path: Path) -> None:
    for number, count in enumerate((5, 1, 8)):
        write_parquet(tmp_path / f"{number}.parquet", t2i_rows(count, 10 * number), group=3)
    of = source(tmp_path)
    assert of.block_sizes == [3, 2, 1, 3, 3, 2]
    captions = [json.loads(text)["a"] for text in texts(of, "captions")]
    assert captions == [f"picture {i}" for i in (*range(5), 10, *range(20, 28))]
    assert of.where(4, 1).endswith("2.parquet, row 4")


def test_jsonl_blank_lines_and_no_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "0"}\n\n{"text": "1"}\r\n\r\n{"text": "é"}', encoding="utf-8")
    of = source(path)
    assert texts(of) == ["0", "1", "é"]
    assert of.where(0, 2).endswith("a.jsonl, line 5")


def test_jsonl_longer_than_a_block(tmp_path: Path) -> None:
    of = source(write_jsonl(tmp_path / "a.jsonl", [{"text": str(i)} for i in range(100)]))
    assert texts(of) == [str(i) for i in range(100)]


def test_tar(tmp_path: Path) -> None:
    rows = [{"json": b'{"k": 1}', "txt": b"a cat", "png": png(0)}, {"0.png": png(1), "1.png": png(2)}]
    of = source(write_tar(tmp_path / "a.tar", rows))
    first, second = of.read(0)
    assert (first["text"], first["k"], first["image"]) == ("a cat", 1, png(0))
    assert "image" not in second
    assert set(second["__files__"]) == {"0.png", "1.png"}


def test_tar_blocks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagel.data.sources.tar.BLOCK_BYTES", 3000)
    path = write_tar(tmp_path / "a.tar", [{"txt": f"{i}".encode() * 700, "json": b"{}"} for i in range(5)])
    of = source(path)
    assert of.block_sizes == [1] * 5
    monkeypatch.setattr("bagel.data.sources.tar.BLOCK", 2)
    monkeypatch.setattr("bagel.data.sources.tar.BLOCK_BYTES", 10**6)
    of = source(path)
    assert of.block_sizes == [2, 2, 1]
    assert [text[0] for text in texts(of)] == list("01234")


def test_large_row_groups_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagel.data.sources.parquet.MAX_GROUP_BYTES", 1000)
    assert "read whole by every worker" in source(write_parquet(tmp_path / "a.parquet", t2i_rows(4))).notes[0]


def test_hugging_face_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [png(i) for i in range(3)], "text": ["a", "b", "c"]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "hf")
    of = source(tmp_path / "hf")
    assert of.columns == ("image", "text")
    assert texts(of) == ["a", "b", "c"]
    assert of.read(0)[1]["image"]["bytes"] == png(1)


def test_urls(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for name in ("a", "b"):
        write_parquet(tmp_path / f"{name}.parquet", [{"text": name}])
        files.pipe(f"/set/{name}.parquet", (tmp_path / f"{name}.parquet").read_bytes())
    files.pipe("/set/c.jsonl", b'{"text": "c"}\n')
    assert texts(source("memory://set/*.parquet")) == ["a", "b"]
    assert texts(source("memory://set/c.jsonl")) == ["c"]
    write_tar(tmp_path / "d.tar", [{"txt": b"d"}])
    files.pipe("/set/d.tar", (tmp_path / "d.tar").read_bytes())
    assert texts(source("memory://set/d.tar")) == ["d"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.parquet", b"no parquet", "no readable parquet"),
        ("a.tar", b"x" * 2000, "no readable tar"),
        ("a.jsonl", b"\n\n", "holds no rows"),
        ("a.txt", b"", "holds no known files; say `format:`"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"data set 'd': .*{words}"):
        source(tmp_path / name)


def test_other_columns_in_a_later_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"text": "a"}])
    write_parquet(tmp_path / "b.parquet", [{"txt": "a"}])
    with pytest.raises(InputError, match="make them two data sets"):
        source(tmp_path)


@pytest.mark.parametrize(("ranks", "workers"), [(8, 4), (3, 1), (1, 1), (40, 4)])
def test_ten_shards_on_any_number_of_consumers(tmp_path: Path, opened: Any, ranks: int, workers: int) -> None:
    """Upstream leaves workers without files here, and drops the files that do not divide."""
    for number in range(10):
        rows = [{"text": f"{number}-{i}"} for i in range(3 + number % 4)]
        write_parquet(tmp_path / f"{number}.parquet", rows)
    dataset = opened({"recipe": "text", "path": str(tmp_path)})
    consumers, read = ranks * workers, Counter[tuple[int, str]]()
    longest = 0
    for consumer in range(consumers):
        todo, mine = Todo(), 0
        while True:
            epoch, place, todo = todo.next(dataset.rows, consumer, consumers)
            if epoch > 1:
                break
            block, index = dataset.order(epoch).row(place)
            read[epoch, dataset.source.read(block)[index]["text"]] += 1
            mine += epoch == 0
        longest = max(longest, mine)
    assert len(read) == 2 * dataset.rows
    assert set(read.values()) == {1}
    assert longest <= dataset.rows // consumers + 1


@pytest.mark.parametrize("after", [1, 2, 3, 7])
def test_what_is_left_is_dealt_out_anew(after: int) -> None:
    rows, before, taken = 23, 4, Counter[tuple[int, int]]()
    todos = []
    for consumer in range(before):
        todo = Todo()
        for _ in range(3 + 4 * consumer):
            epoch, place, todo = todo.next(rows, consumer, before)
            taken[epoch, place] += 1
        todos.append(todo)
    waiting = list(taken)[:2]
    taken.subtract(waiting)
    for consumer, todo in enumerate(share_again(todos, waiting, rows, after)):
        while True:
            epoch, place, todo = todo.next(rows, consumer, after)
            if epoch > 4:
                break
            taken[epoch, place] += 1
    assert taken == Counter((epoch, place) for epoch in range(5) for place in range(rows))


def test_epochs_differ_and_cover(tmp_path: Path, opened: Any) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": str(i)} for i in range(100)])
    dataset = opened({"recipe": "text", "path": str(path), "max_rows": 70})
    orders = [[dataset.order(epoch).row(place) for place in range(70)] for epoch in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert max(block * 32 + index for block, index in orders[0]) == 69


def test_pictures_with_a_text_beside_each(tmp_path: Path) -> None:
    """As `bagel train` finds them without a word about the format; a table in the folder comes first."""
    for number, name in enumerate(("a.png", "b.PNG", "sub/c.d.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(number))
        (tmp_path / name).with_suffix(".txt").write_text(f"\ufeffpicture {number}\n", encoding="utf-8")
    of = source(tmp_path)
    assert texts(of) == ["picture 0", "picture 1", "picture 2"]
    assert texts(of, "image") == [png(0), png(1), png(2)]
    assert of.where(0, 2).endswith("sub/c.d.png")
    assert texts(source(tmp_path / "*.png")) == ["picture 0"]
    (tmp_path / "b.txt").unlink()
    assert next(iter(of.read(0)))["text"] == "picture 0"
    with pytest.raises(InputError, match=r"b.txt cannot be opened"):
        of.read(0)[1]
    write_jsonl(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "text": "told"}])
    assert texts(source(tmp_path)) == ["told"]


def test_of_several_paths_the_one_that_names_nothing_is_named(tmp_path: Path) -> None:
    good = write_jsonl(tmp_path / "a.jsonl", [{"text": "0"}])
    with pytest.raises(InputError, match=r"data set 'd': \S*gone.jsonl names no"):
        source([good, tmp_path / "gone.jsonl"])
