"""Affixes: what the post-processor of `tokenizer.json` puts around a text.

Source: gguf-py/gguf/vocab.py of the llama.cpp that llama-cpp-python 0.3.36 holds,
`SpecialVocab._try_load_from_tokenizer_json`, step by step: a file that loads must say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeship.exporters.gguf.vocabulary.files import Table, table, tables


@dataclass(kw_only=True)
class Affixes:
    """What was found; filled by `read_affixes`.

    Attributes:
        settings: `tokenizer_config.json` with the roles that the post-processor gives to tokens.
        adds: By role, whether its token is added.
        more_roles: Roles beyond the usual ones: "eot", "eom".
        bos, cls, eos, sep: Tokens of these roles: a text, or as in the settings an object, which
            equals no text.
    """

    settings: dict[str, object]
    adds: dict[str, bool] = field(default_factory=dict)
    more_roles: list[str] = field(default_factory=list)
    bos: object = None
    cls: object = None
    eos: object = None
    sep: object = None


def read_affixes(tokenizer: Table | None, settings: Table | None) -> Affixes:
    """Read the post-processor, if there is one.

    Args:
        tokenizer: `tokenizer.json`.
        settings: `tokenizer_config.json`.
    """
    affixes = Affixes(settings=dict(settings or {}))
    if not tokenizer:
        return affixes
    known = affixes.settings
    affixes.bos, affixes.cls = known.get("bos_token"), known.get("cls_token")
    affixes.eos, affixes.sep = known.get("eos_token"), known.get("sep_token")
    if not affixes.bos and affixes.cls and known:
        known["bos_token"] = affixes.bos = affixes.cls
    if not affixes.eos and affixes.sep and known:
        known["eos_token"] = affixes.eos = affixes.sep
    post_processor = table(tokenizer.get("post_processor"))
    steps = tables(post_processor.get("processors")) or [post_processor]
    for step in steps:
        match step.get("type"):
            case "ByteLevel":
                affixes.adds.setdefault("bos", False)
                affixes.adds.setdefault("eos", False)
            case "RobertaProcessing":
                _read_roberta(affixes, step)
            case "TemplateProcessing":
                _read_template(affixes, step)
            case _:
                pass
    return affixes


def _read_roberta(affixes: Affixes, step: Table) -> None:
    affixes.adds |= {"bos": True, "eos": True, "sep": True}
    for role, other in (("cls", affixes.bos), ("sep", affixes.eos)):
        if not getattr(affixes, role) and affixes.settings:
            named = step.get(role)
            value = named[0] if isinstance(named, list) and named else other
            setattr(affixes, role, value)
            affixes.settings[f"{role}_token"] = value


def _read_template(affixes: Affixes, step: Table) -> None:
    single = tables(step.get("single"))
    first = last = None
    if len(single) > 1:
        first = _name(single[0], "SpecialToken")
        last = _name(single[-1], "SpecialToken")
        if first:
            _read_first(affixes, first)
        if last:
            _read_last(affixes, last)
    pair = tables(step.get("pair"))
    if pair:
        start = 1 if first and _name(pair[0], "SpecialToken") == first else 0
        stop = len(pair) - 1 if last and _name(pair[-1], "SpecialToken") == last else len(pair)
        _read_middle(affixes, pair[start:stop], ends=bool(last))


def _read_first(affixes: Affixes, first: str) -> None:
    known = affixes.settings
    if not known:
        affixes.bos = first
    elif first not in (affixes.bos, affixes.cls):
        if not affixes.bos:
            known["bos_token"] = affixes.bos = first
        if not affixes.cls:
            known["cls_token"] = affixes.cls = first
    affixes.adds["bos"] = first in (affixes.bos, affixes.cls)


def _read_last(affixes: Affixes, last: str) -> None:
    known = affixes.settings
    if not known:
        affixes.eos = last
    elif last != affixes.eos:
        for role in ("eot", "eom"):
            if role not in affixes.more_roles:
                affixes.more_roles.append(role)
                known[f"{role}_token"] = affixes.eos
                break
        known["eos_token"] = affixes.eos = last
    affixes.adds["eos"] = last == affixes.eos


def _read_middle(affixes: Affixes, pair: list[Table], *, ends: bool) -> None:
    """What stands between the two texts of a pair: `A [sep] [eos] B`."""
    middle = pair[1:-1]
    if not middle or _name(pair[0], "Sequence") != "A" or _name(pair[-1], "Sequence") != "B":
        return
    separators = (affixes.sep, affixes.eos)
    entry = _name(middle[0], "SpecialToken")
    adds = bool(entry) and entry in separators and not ends
    if len(middle) == 2:
        entry = _name(middle[1], "SpecialToken")
        adds = adds or (bool(entry) and entry in separators)
    affixes.adds["sep"] = adds
    if adds and not affixes.sep and affixes.settings:
        affixes.settings["sep_token"] = affixes.eos


def _name(entry: Table, kind: str) -> str | None:
    """Name of a special token or a sequence in a template."""
    name = table(entry.get(kind)).get("id")
    return name if isinstance(name, str) and name else None
