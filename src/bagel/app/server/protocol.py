"""The types of requests. Drawing and writing options come from `options.py`: every field under its own name."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from bagel.options import ImageOptions, TextOptions


def _fields(*classes: type[Any]) -> dict[str, Any]:
    """The fields of options classes for pydantic, with their help; ranges are told here and checked later."""
    made = {}
    for cls in classes:
        hints = get_type_hints(cls)
        for f in dataclasses.fields(cls):
            hint = list[list[float]] | None if f.name == "noise" else hints[f.name]
            names = {"low": "minimum", "high": "maximum", "above": "exclusiveMinimum", "choices": "enum"}
            told = {names[key]: value for key, value in f.metadata.items() if key in names}
            told = {} if f.name == "cfg_interval" else told
            if "enum" in told:
                told["enum"] = [*told["enum"], None]
            made[f.name] = (hint, Field(default=None, description=f.metadata["help"], json_schema_extra=told))
    return made


_STRICT = ConfigDict(extra="forbid")
OptionFields: Any = create_model("OptionFields", __config__=_STRICT, **_fields(TextOptions, ImageOptions))


class Refusing(OptionFields):
    """Fields of OpenAI's that do nothing here may hold their neutral value and no other."""

    @model_validator(mode="after")
    def _neutral(self) -> Refusing:
        for name, allowed in self.neutral().items():
            if name in self.model_fields_set and getattr(self, name) not in allowed:
                raise ValueError(f"{name} is not supported; leave it out.")
        return self

    @classmethod
    def neutral(cls) -> dict[str, tuple[Any, ...]]:
        return {}

    def options(self) -> dict[str, Any]:
        """The options that were given, by name."""
        names = OptionFields.model_fields
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class TextPiece(BaseModel):
    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    url: str = Field(description="A data URL, data:image/png;base64,...; https where the server allows the host.")
    detail: str | None = None


class ImagePiece(BaseModel):
    type: Literal["image_url"]
    image_url: ImageUrl


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPiece | ImagePiece] | None = None
    name: str | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(Refusing):
    """`POST /v1/chat/completions`"""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    model: str | None = None
    max_completion_tokens: int | None = None
    modalities: list[Literal["text", "image"]] | None = Field(
        default=None, max_length=2, description="With image, pictures come back as parts of the answer."
    )
    output: list[Literal["text", "image"]] | None = Field(
        default=None, max_length=16, description="The parts to make, in order; without it the model decides."
    )
    max_images: int = Field(default=4, ge=0, le=16)
    partial_images: int = Field(default=0, ge=0, le=3, description="Previews of each picture in a stream.")
    n: int = Field(default=1, ge=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    stop: Any = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None

    @classmethod
    def neutral(cls) -> dict[str, tuple[Any, ...]]:
        return {
            "top_p": (None, 1),
            "presence_penalty": (None, 0),
            "frequency_penalty": (None, 0),
            "logit_bias": (None, {}),
            "logprobs": (None, False),
            "stop": (None, []),
            "tools": (None, []),
            "tool_choice": (None, "none", "auto"),
            "response_format": (None, {"type": "text"}),
        }


class DrawRequest(Refusing):
    """`POST /v1/images/generations`"""

    prompt: str
    model: str | None = None
    n: int | None = Field(default=1, ge=1)
    size: str | None = Field(default=None, description="WIDTHxHEIGHT in pixels, or auto.")
    response_format: str | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = "png"
    output_compression: int | None = Field(default=None, ge=0, le=100, description="Quality of jpeg and webp.")
    stream: bool | None = False
    partial_images: int | None = Field(default=0, ge=0, le=3)
    user: str | None = None
    quality: str | None = Field(default=None, description="Has no effect; see num_timesteps.")
    style: str | None = Field(default=None, description="Has no effect.")
    moderation: str | None = None
    background: str | None = None
    input_fidelity: str | None = None

    @classmethod
    def neutral(cls) -> dict[str, tuple[Any, ...]]:
        return {"response_format": (None, "b64_json"), "background": (None, "auto", "opaque")}


class EditRequest(DrawRequest):
    """`POST /v1/images/edits` as JSON; as a form, `image` (or several `image[]`) are files."""

    image: str | list[str] = Field(description="One or several data URLs.")
    mask: None = None
