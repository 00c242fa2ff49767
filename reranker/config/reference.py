"""Write docs/configuration.md from the schema, its comments, and the presets in `conf/`.

Usage: python -m reranker.config.reference > docs/configuration.md
"""

from __future__ import annotations

import ast
import dataclasses
import html
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING

from reranker.config import renamed, schema
from reranker.config.checks import ranges
from reranker.config.locations import CONFIGS
from reranker.config.schema import Config

COMMAND = "python -m reranker.config.reference > docs/configuration.md"
MAX_SETTINGS = 30  # longer presets are listed with their number of keys
HEADER = f"""\
# Configuration

This page is generated; do not edit it. Command: `{COMMAND}`

A run takes one preset from every group (`data=bookdb`) and single keys that override it
(`trainer.epochs=2`):

```bash
python main.py data=bookdb data.root=FOLDER eval.n_candidates=100
python main.py -m sampling.neg_ratio=3,5   # a sweep: one run per value
python main.py experiments=goodreads_cpu   # several presets and keys from one file
python main.py --cfg job                   # print the complete configuration, start no run
```

An unknown key or an impossible value stops the command before any work. The tables list the
default of every key; a preset may change it. A required key has no default and is set by every
preset of its group. To add a preset, add a YAML file to the folder of its group.
"""


@dataclass(frozen=True)
class Key:
    """A key of the configuration, as the page shows it."""

    name: str
    type: str
    default: str
    description: str


def page() -> str:
    """Return the text of docs/configuration.md."""
    nodes = dict(blocks(Config, ""))
    top = ["## Other keys", "", *_key_table(keys("", nodes.pop("")))]
    sections = [line for prefix, node in nodes.items() for line in _section(prefix, node)]
    experiments = ["## experiments", "", *_presets("experiments", CONFIGS / "experiments")]
    return "\n".join([HEADER, *sections, *top, *experiments, *_renamed()]).rstrip() + "\n"


def keys(prefix: str, node: type) -> list[Key]:
    """Return the keys of one dataclass of the schema, without those of nested dataclasses.

    Example:
        keys("engine", EngineConfig)[0].name  # "engine.scheduler"
    """
    comments = _comments()[node.__name__]
    allowed = {key: text for key, text, _ in ranges(Config())}
    return [
        Key(
            name=name,
            type=_type(str(field.type)),
            default="`seed`" if name in schema.SEEDS else _default(field),
            description=_description(comments[field.name], allowed.get(name)),
        )
        for name, field in _fields(prefix, node)
        if not dataclasses.is_dataclass(field.default_factory) and name != "experiments"
    ]


def blocks(node: type, prefix: str) -> Iterator[tuple[str, type]]:
    """Yield every dataclass of the schema with its prefix: ("data", DataConfig), …"""
    yield prefix, node
    for name, field in _fields(prefix, node):
        if dataclasses.is_dataclass(block := field.default_factory):
            yield from blocks(block, name)


def _fields(prefix: str, node: type) -> list[tuple[str, dataclasses.Field[Any]]]:
    return [(f"{prefix}.{f.name}".lstrip("."), f) for f in dataclasses.fields(node)]


def _comments() -> dict[str, dict[str, str]]:
    """Return the comment of every field: class -> field -> text."""
    source = inspect.getsource(schema)
    lines = source.splitlines()
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return {
        node.name: {
            ast.unparse(field.target): _comment(lines, field)
            for field in node.body
            if isinstance(field, ast.AnnAssign)
        }
        for node in classes
    }


def _comment(lines: list[str], field: ast.AnnAssign) -> str:
    """Return the comment at the end of a field, or else the comment lines above it."""
    last = lines[(field.end_lineno or field.lineno) - 1]
    if trailing := last[field.end_col_offset :].partition("#")[2].strip():
        return trailing
    n_above = 0
    while lines[field.lineno - 2 - n_above].lstrip().startswith("#"):
        n_above += 1
    above = lines[field.lineno - 1 - n_above : field.lineno - 1]
    return " ".join(line.strip(" #") for line in above)


def _description(comment: str, allowed: str | None) -> str:
    sentences = [comment, f"Allowed: {allowed}" if allowed else ""]
    return " ".join(f"{_capitalised(s).rstrip('.')}." for s in sentences if s)


def _capitalised(sentence: str) -> str:
    """Return the sentence with a capital, unless it starts with a value such as `auto:`."""
    return sentence if re.match(r"\w+(:| \|)", sentence) else sentence[:1].upper() + sentence[1:]


def _type(annotation: str) -> str:
    names = {"None": "null", "dict[str, list[str]]": "mapping"}
    return " or ".join(names.get(part, part) for part in annotation.split(" | "))


def _default(field: dataclasses.Field[Any]) -> str:
    factory = field.default_factory
    value = field.default if factory is dataclasses.MISSING else factory()
    return "required" if value == MISSING else _code(_value(value))


def _value(value: object) -> str:
    """Return a value as Hydra's command line takes it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _section(prefix: str, node: type) -> list[str]:
    """Return a heading, the keys and the presets of one dataclass."""
    level = "##" if "." not in prefix else "###"
    text = " ".join((inspect.getdoc(node) or "").split())
    lines = [f"{level} {prefix}", "", text, "", *_key_table(keys(prefix, node))]
    folder = CONFIGS / "conf" / prefix
    for presets in (folder, *sorted(p for p in folder.glob("*") if p.is_dir())):
        lines += _presets(presets.relative_to(CONFIGS / "conf").as_posix(), presets)
    return lines


def _key_table(rows: list[Key]) -> list[str]:
    head = ["| Key | Type | Default | Description |", "| --- | --- | --- | --- |"]
    body = [
        f"| `{key.name}` | {key.type} | {key.default} | {_escaped(key.description)} |"
        for key in rows
    ]
    return [*head, *body, ""]


def _presets(group: str, folder: Path) -> list[str]:
    """Return the table of the presets in a folder, or nothing if it has none."""
    files = sorted(folder.glob("*.yaml"))
    head = ["| Preset | Use | Sets |", "| --- | --- | --- |"]
    body = [f"| `{group}={f.stem}` | {_escaped(_use(f))} | {_settings(f)} |" for f in files]
    return [*head, *body, ""] if files else []


def _use(file: Path) -> str:
    """Return the first sentence of the comment at the start of a preset."""
    lines = file.read_text(encoding="utf-8").splitlines()
    n_comments = next((i for i, line in enumerate(lines) if line[:1] != "#"), len(lines))
    comment = [line.strip("# ") for line in lines[:n_comments] if "@package" not in line]
    return re.split(r"(?<=[.?])\s", " ".join(comment), maxsplit=1)[0]


def _settings(file: Path) -> str:
    """Return `key=value` for every key that a preset sets, except its name."""
    content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    settings = [f"{key}={_value(v)}" for key, v in _flat(content) if key != "name"]
    if len(settings) > MAX_SETTINGS:
        return f"{len(settings)} keys"
    return ", ".join(_code(setting) for setting in settings)


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _renamed() -> list[str]:
    """Return the section about the names of earlier versions."""
    text = "These names of earlier versions are refused; the error has the new name."
    head = ["## Renamed", "", text, "", "| Old | New |", "| --- | --- |"]
    return [*head, *(f"| {_code(old)} | {_code(new)} |" for old, new in renamed.pairs())]


def _code(text: str) -> str:
    return f"<code>{_escaped(text)}</code>" if re.search("[|<&*]", text) else f"`{text}`"


def _escaped(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return html.escape(text, quote=False).replace("|", "&#124;").replace("*", "&#42;")


if __name__ == "__main__":
    print(page(), end="")
