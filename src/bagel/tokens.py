"""The tokenizer: Qwen2's byte-level BPE, the four special tokens, and the official system prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HFTokenizer

from bagel.errors import CheckpointError

THINK_PROMPT = {
    "text": "You should first think about the reasoning process in the mind and then provide the user with the "
    "answer. \nThe reasoning process is enclosed within <think> </think> tags, i.e. <think> reasoning process "
    "here </think> answer here",
    "image": "You should first think about the planning process in the mind and then generate the image. \nThe "
    "planning process is enclosed within <think> </think> tags, i.e. <think> planning process here </think> "
    "image here",
}
"""System prompts of `think`, by what is to come out; word for word the ones the model was trained with."""

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


class Tokenizer:
    """Text to ids and back.

    bos, eos: ids of `<|im_start|>`, `<|im_end|>`; start_of_image, end_of_image: of `<|vision_start|>`,
    `<|vision_end|>`. One that the files lack is appended after the last known id, as upstream does.
    num_stored: one more than the highest id in the files; settings: what `tokenizer_config.json` says.
    """

    def __init__(self, backend: HFTokenizer, settings: Mapping[str, Any] | None = None) -> None:
        self.backend, self.settings = backend, settings or {}
        self.num_stored = len(self)
        missing = [token for token in SPECIAL if backend.token_to_id(token) is None]
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in missing])
        self.bos, self.eos, self.start_of_image, self.end_of_image = (self.id_of(token) for token in SPECIAL)

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Reads `tokenizer.json`, or else `vocab.json`, `merges.txt` and `tokenizer_config.json`."""
        single = folder / "tokenizer.json"
        try:
            backend = HFTokenizer.from_file(str(single)) if single.exists() else _from_vocab(folder)
            settings = _read(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{folder} has no tokenizer: {Path(str(error.filename)).name} is missing, and so is tokenizer.json; "
                "copy vocab.json, merges.txt and tokenizer_config.json from the original model."
            ) from None
        except Exception as error:  # the backend raises plain Exception for a damaged file
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"the tokenizer in {folder} cannot be read ({reason}); copy its files again."
            ) from None
        backend.no_truncation()
        backend.no_padding()
        return cls(backend, settings)

    def encode(self, text: str) -> list[int]:
        """Ids without markers; special tokens written out in the text count as themselves, as upstream."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text with special tokens kept; bytes that are no UTF-8 become U+FFFD. Ids beyond the vocabulary
        (the padding of the embedding table) are nothing."""
        return self.backend.decode(list(ids), skip_special_tokens=False)

    def id_of(self, token: str) -> int:
        found = self.backend.token_to_id(token)
        assert found is not None, token
        return found

    def segment(self, text: str) -> list[int]:
        """The ids of a text segment: start, text, end."""
        return [self.bos, *self.encode(text), self.eos]

    def __len__(self) -> int:
        """One more than the highest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def files(self) -> dict[str, str]:
        """The four files of an official folder by name, their text; upstream reads the last three."""
        whole = json.loads(self.backend.to_str())
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in whole["model"]["merges"]]
        added = {str(entry.pop("id")): entry for entry in whole["added_tokens"]}
        listed = self.settings.get("additional_special_tokens") or []
        settings = {
            **_PLAIN_SETTINGS,
            **self.settings,
            "added_tokens_decoder": added,
            "additional_special_tokens": list(dict.fromkeys([*listed, *SPECIAL])),
        }
        return {
            "tokenizer.json": self.backend.to_str(pretty=True),
            "vocab.json": json.dumps(whole["model"]["vocab"], ensure_ascii=False),
            "merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
            "tokenizer_config.json": json.dumps(settings, ensure_ascii=False, indent=1),
        }


_PLAIN_SETTINGS = {
    "tokenizer_class": "Qwen2Tokenizer",
    "add_prefix_space": False,
    "bos_token": None,
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "unk_token": None,
    "errors": "replace",
}
"""Where no file says otherwise. With other names for these upstream's class would add tokens of its own."""


def _read(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} is no object")
    return data


def _from_vocab(folder: Path) -> HFTokenizer:
    vocab = _read(folder / "vocab.json")
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = (line.split(" ") for line in lines if line and not line.startswith("#version"))
    merges = [(left, right) for left, right in pairs]
    if not merges and any(len(token) > 1 for token in vocab):
        raise ValueError("merges.txt is empty")
    backend = byte_level(models.BPE(vocab=vocab, merges=merges))
    for wanted, token, special in _added_tokens(folder / "tokenizer_config.json"):
        (backend.add_special_tokens if special else backend.add_tokens)([token])
        if backend.token_to_id(token.content) != wanted:
            raise ValueError(f"{token.content} would get id {backend.token_to_id(token.content)}, not {wanted}")
    return backend


def byte_level(model: models.BPE) -> HFTokenizer:
    """Text as the published tokenizer takes it: normalised, split, as bytes."""
    backend = HFTokenizer(model)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _added_tokens(path: Path) -> list[tuple[int, AddedToken, bool]]:
    """Tokens outside the vocabulary in the order of their ids, which the backend gives out by counting up."""
    listed: dict[str, dict[str, Any]] = _read(path).get("added_tokens_decoder") or {}
    return [
        (
            int(wanted),
            AddedToken(
                entry["content"],
                single_word=entry.get("single_word", False),
                lstrip=entry.get("lstrip", False),
                rstrip=entry.get("rstrip", False),
                normalized=entry.get("normalized", False),
                special=entry.get("special", True),
            ),
            entry.get("special", True),
        )
        for wanted, entry in sorted(listed.items(), key=lambda item: int(item[0]))
    ]
