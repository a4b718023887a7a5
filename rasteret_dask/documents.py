"""YAML files read into typed values; whatever is wrong is said with the path of the key.

Pipelines and cluster profiles both come through here: `read` parses, `assign` applies ``--set``
values, `substitute` fills in ``${ENV}``, `validate` makes the typed value. Nothing in a document
is ever executed.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rasteret_dask.errors import ConfigError

Step = str | int
M = TypeVar("M", bound=BaseModel)

# pydantic puts the tag of a union into the path of an error; ours start so, and are taken out
# again.
TAG = "kind:"
_MAX_BYTES = 4 * 1024 * 1024
_MAX_RECORD = 256 * 1024 * 1024
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\{))")
_QUOTED = re.compile(r"'([^']*)'")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_:-]+")
_STEP = re.compile(r"""\[(\d+)\]|(?:^|\.)(?:"([^"]+)"|'([^']+)'|([^.\[\]"']+))""")


class Strict(BaseModel):
    """Base of every value that is read from YAML: frozen, and no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
                raise PydanticCustomError(
                    "unknown_key",
                    "unknown key{meant}; known here: {known}",
                    {
                        "key": key,
                        "meant": f" (did you mean {near[0]!r}?)" if near else "",
                        "known": ", ".join(known),
                    },
                )
        return values


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` that refuses a key given twice instead of dropping the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain word", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read(source: Path) -> dict[str, Any]:
    """Read one file that holds a mapping: YAML, or JSON as records of runs are.

    Raises
    ------
    ConfigError
        The file is missing, is no YAML, is absurdly large, or does not hold a mapping.
    """
    try:
        with source.open("rb") as file:
            # The record of a run may hold a coastline.
            most = _MAX_RECORD if file.read(1) == b"{" else _MAX_BYTES
        if source.stat().st_size > most:
            raise ConfigError(f"{source} is larger than {most} bytes: no pipeline or profile")
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} cannot be read: {_reason(error)}") from None
    found = _of_json(text) if text.startswith("{") else None
    return parse(text, name=str(source)) if found is None else found


def _of_json(text: str) -> dict[str, Any] | None:
    """What JSON says, which YAML 1.1 reads otherwise (1e-05 is a text there); None for what is no JSON, or gives a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key is given twice")
        return dict(pairs)

    try:
        found: dict[str, Any] = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return None
    return found


def parse(text: str, *, name: str = "the document") -> dict[str, Any]:
    """As `read`, from text; `name` is used in errors.

    Raises
    ------
    ConfigError
        The text is no YAML, or no mapping.
    """
    data = _load(text, name)
    if not isinstance(data, dict):
        raise ConfigError(f"{name} holds {_kind(data)}; a mapping of keys was expected")
    return data


def _load(text: str, name: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{name} is not valid YAML{where}: {problem}") from None
    except (ValueError, RecursionError) as error:  # 2023-02-31; a thousand brackets
        raise ConfigError(f"{name} is not valid YAML: {error}") from None


# --- --set ---------------------------------------------------------------------------------------
def split_path(text: str) -> tuple[Step, ...]:
    """``cube.bands[1]`` or ``cube.bands.1`` → ``("cube", "bands", 1)``; quotes keep dots within a
    key.

    Raises
    ------
    ConfigError
        The text is no path of keys.
    """
    steps: list[Step] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None or (match.start() == match.end()):
            raise ConfigError(f"{text!r} is no path of keys; write it as cube.bands[1]")
        index, double, single, plain = match.groups()
        if index is not None:
            steps.append(int(index))
        else:
            steps.append(double or single or plain)
        position = match.end()
    if not steps:
        raise ConfigError("an empty path of keys; write it as cube.bands[1]")
    return tuple(steps)


def join_path(steps: Iterable[Step]) -> str:
    """The reverse of `split_path`."""
    out = ""
    for step in steps:
        if isinstance(step, int):
            out += f"[{step}]"
        else:
            plain = _PLAIN_KEY.fullmatch(step) is not None
            out += ("." if out else "") + (step if plain else f'"{step}"')
    return out


def assign(data: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Apply ``key.path=value`` assignments, in order, to a copy of `data`.

    Values are YAML (``[1, 2]``, ``true``, ``null``); lists are indexed, and one past the end
    appends.

    Raises
    ------
    ConfigError
        An assignment has no ``=``, or its path leads nowhere.
    """
    result: dict[str, Any] = _copy(data)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r} has no '='; --set takes key.path=value")
        steps = split_path(path.strip())
        _assign_one(result, steps, _load(text, f"the value of --set {path}"))
    return result


def _assign_one(root: dict[str, Any], steps: tuple[Step, ...], value: Any) -> None:
    node: Any = root
    for depth, step in enumerate(steps):
        here = join_path(steps[: depth + 1])
        last = depth == len(steps) - 1
        fresh: Any = value if last else ([] if isinstance(steps[depth + 1], int) else {})
        if isinstance(node, list):
            index = _index(node, step, here)
            if index == len(node):
                node.append(fresh)
            elif last or node[index] is None:
                node[index] = fresh
            node = node[index]
        elif isinstance(node, dict):
            if last or node.get(step) is None:
                node[step] = fresh
            node = node[step]
        else:
            raise ConfigError(
                f"cannot be set: {join_path(steps[:depth])} holds {_kind(node)}", path=here
            )


def _index(node: list[Any], step: Step, here: str) -> int:
    if isinstance(step, str) and not step.isdigit():
        raise ConfigError(f"a list is indexed by number, not by {step!r}", path=here)
    if int(step) > len(node):
        raise ConfigError(f"the list has {len(node)} entries", path=here)
    return int(step)


# --- ${ENV} --------------------------------------------------------------------------------------
def substitute(
    data: dict[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in every string value; ``$$`` is a dollar sign.

    What is filled in is a string and stays one: a variable cannot add keys to the document.
    """
    variables = os.environ if environment is None else environment
    result: dict[str, Any] = _walk(data, (), variables)
    return result


def _walk(node: Any, steps: tuple[Step, ...], variables: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _walk(value, (*steps, str(key)), variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_walk(value, (*steps, i), variables) for i, value in enumerate(node)]
    if not isinstance(node, str) or "$" not in node:
        return node

    def fill(match: re.Match[str]) -> str:
        dollar, name, default, open_brace = match.groups()
        if dollar:
            return "$"
        if open_brace:
            raise ConfigError("'${' without a name and '}' after it", path=join_path(steps))
        value = variables.get(name, default)
        if value is None:
            raise ConfigError(
                f"the environment variable {name} is not set",
                path=join_path(steps),
                hint=f"set it, or give a default: ${{{name}:-value}}",
            )
        return str(value)

    return _VARIABLE.sub(fill, node)


# --- typed values --------------------------------------------------------------------------------
def validate(model: type[M], data: Mapping[str, Any], where: Callable[[str], str] = str) -> M:
    """Make `model` from `data`; the first thing wrong becomes the error, the others its hint,
    where `where` says of a path where it stands (see `Lines`).

    Raises
    ------
    ConfigError
        The data does not fit the model; the path of the key is said.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_problem(dict(one)) for one in error.errors(include_url=False)]
    (path, message), *others = problems
    hint = "; ".join(f"{where(p)}: {m}" for p, m in others) or None
    raise ConfigError(message, path=path, hint=None if hint is None else f"also {hint}")


def _problem(one: Mapping[str, Any]) -> tuple[str, str]:
    steps = [s for s in one["loc"] if not (isinstance(s, str) and s.startswith(TAG))]
    kind, message = one["type"], one["msg"]
    if kind == "unknown_key":
        steps.append(str(one["ctx"]["key"]))
    elif kind == "missing":
        message = "is missing"
    elif kind == "value_error":
        message = str(one["ctx"]["error"])
    elif kind in ("union_tag_not_found", "key_conflict"):
        keys = [str(key) for key in one["input"]] if isinstance(one["input"], Mapping) else []
        message += _meant(keys, message.rpartition("the keys ")[2].split(", "))
    else:
        message = f"{message[0].lower()}{message[1:]}, not {_show(one['input'])}"
        message = message.replace("input should be", "must be")
        if kind == "literal_error":
            message += _meant([str(one["input"])], _QUOTED.findall(one["ctx"]["expected"]))
    return join_path(steps) or "(document)", message


def _meant(given: Iterable[str], known: Sequence[str]) -> str:
    """What somebody meant who misspelt a word; empty text when it is like none."""
    for word in given:
        near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
        if near:
            return f" (did you mean {near[0]!r}?)"
    return ""


# --- lines ---------------------------------------------------------------------------------------
class Lines:
    """On which lines of a YAML file its keys stand.

    Parameters
    ----------
    source : Path
        A file that `read` has taken.
    sets : iterable of str
        Assignments that were made over it: what they say stands on no line.
    """

    def __init__(self, source: Path, sets: Iterable[str] = ()) -> None:
        self._name = source.name
        try:
            self._root = yaml.compose(source.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except yaml.YAMLError:  # JSON that is none: its tabs
            self._root = None
        self._set = [split_path(one.partition("=")[0].strip()) for one in sets]

    def of(self, path: str) -> int | None:
        """The line of a key, or of what it should stand in; None when the file does not say it."""
        steps = split_path(path) if path and not path.startswith("(") else ()
        if any(steps[: len(one)] == one for one in self._set):
            return None
        node, line = self._root, None
        for step in steps:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line

    def say(self, path: str) -> str:
        """``steps[0] (line 9)``."""
        line = self.of(path)
        return path if line is None else f"{path} (line {line})"

    def told(self, error: ConfigError) -> ConfigError:
        """The same error, which says the line as well: ``a.yaml:6: unknown key``."""
        line = None if error.path is None else self.of(error.path)
        if line is None:
            return error
        message = f"{self._name}:{line}: {error.message}"
        return ConfigError(message, path=error.path, hint=error.hint)


def _child(node: Any, step: Step) -> tuple[int, Any] | None:
    """Line (from 1) and node of one key or index."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and str(step).isdigit() and int(step) < len(node.value):
        value = node.value[int(step)]
        return value.start_mark.line + 1, value
    return None


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    words = {list: "a list", dict: "a mapping", str: "text"}
    return next((word for kind, word in words.items() if isinstance(value, kind)), _show(value))


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _copy(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copy(value) for key, value in node.items()}
    return [_copy(value) for value in node] if isinstance(node, list) else node
