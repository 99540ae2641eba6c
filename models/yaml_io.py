"""Strict reading of YAML files that users write: hostile until parsed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import InputFileError, NmsatError

MAX_FILE_BYTES = 64 * 2**20
Model = TypeVar("Model", bound=BaseModel)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and aliases (a few of which expand to gigabytes)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None, None, "aliases are not allowed, write the value out", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(getattr(key_node, "value", key_node))
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r}, remove one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class NamedFile(BaseModel, frozen=True):
    """What users write as a YAML file, and of which the package ships some by name: accelerators, cores, boards."""

    model_config = ConfigDict(extra="forbid", strict=True)
    _files: ClassVar[tuple[str, Path]]
    """What it is called in messages, and the folder of those that ship."""

    @classmethod
    def load(cls, name_or_path: str | Path) -> Self:
        """Load a shipped one by name, or a YAML file by path.

        Raises
        ------
        InputFileError
            If there is no such name or file, or the file breaks a rule.
        """
        path = named_file(*cls._files, name_or_path, (".yaml", ".yml"))
        return validate(cls, read_yaml(path), str(name_or_path))

    @classmethod
    def names(cls) -> list[str]:
        """Names of those that ship with the package, sorted."""
        return names_in(cls._files[1])

    def config_hash(self) -> str:
        """:func:`content_hash` of all fields."""
        return content_hash(self.model_dump())


def content_hash(content: dict[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of plain values in canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def named_file(kind: str, folder: Path, name: str | Path, suffixes: tuple[str, ...]) -> Path:
    """The file of a shipped thing by name, or the user's own file by path.

    Raises
    ------
    InputFileError
        If the text is neither a shipped name nor looks like a path.
    """
    text, shipped = str(name), names_in(folder)
    if text in shipped:
        return folder / f"{text}.yaml"
    if isinstance(name, Path) or "/" in text or text.lower().endswith(suffixes):
        return Path(name)
    raise InputFileError(f"{kind} {text!r}: must be one of {', '.join(shipped)}, or a {' or '.join(suffixes)} file")


def names_in(folder: Path) -> list[str]:
    """Names of the YAML files that ship in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_text(path: Path) -> str:
    """Read a user's text file.

    Raises
    ------
    InputFileError
        If it is missing, a folder, unreadable, larger than 64 MiB or not UTF-8.
    """
    try:
        if path.is_dir():
            raise InputFileError(f"{path}: must be a file, not a folder")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputFileError(f"{path}: must be at most {MAX_FILE_BYTES} bytes, not {size}")
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputFileError(f"{path}: must be an existing file; there is none of that name") from None
    except UnicodeDecodeError as error:
        raise InputFileError(
            f"{path}: must be UTF-8 text, not binary (byte {error.start} is 0x{error.object[error.start]:02x})"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputFileError(f"{path}: must be readable; {reason}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse one YAML mapping; syntax errors, duplicate keys, aliases and tags are an InputFileError."""
    text = read_text(path)
    try:
        data = yaml.load(text, Loader=_StrictLoader)  # a SafeLoader: builds plain values only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputFileError(f"{path}:{line} must be valid YAML; {problem}") from None
    if not isinstance(data, dict):
        raise NmsatError.rule(str(path), "", "a YAML mapping of keys to values", data)
    return data


def validate(model: type[Model], data: dict[str, Any], where: str) -> Model:
    """Build a pydantic model; its first complaint becomes one line naming file, key, rule and value."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _one_line(model, error, where) from None


def _one_line(model: type[BaseModel], error: ValidationError, where: str) -> NmsatError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    more = error.error_count() - 1
    hint = f"and {more} more" if more else ""
    kind = first["type"]
    if kind == "extra_forbidden":
        known = ", ".join(sorted(model.model_fields)) if len(first["loc"]) == 1 else "see the JSON schema"
        return InputFileError(f"{where}: {key}: must be a known key; known: {known}")
    if kind == "missing":
        return InputFileError(f"{where}: {key}: must be given")
    if kind in ("value_error", "assertion_error"):
        message = str(first.get("ctx", {}).get("error", first["msg"]))
        return InputFileError(f"{where}: {key}: {message}" if key else f"{where}: {message}")
    rule = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    text = NmsatError.rule(where, key, rule, first.get("input"), hint)
    return InputFileError(str(text))
