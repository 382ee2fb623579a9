"""What a policy lets out of the vendor's file: per attribute keep, remove, replace, hash or shift.

A policy filters what the slide itself says. What a curator's map sets is curated, and kept.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from coverslip.errors import UsageError
from coverslip.metadata_maps.deid.keys import DeidKey

__all__ = ["Action", "DeidRecord", "Policy", "Rule", "Value", "apply_policy", "load_policy"]

Value = str | float | bytes | datetime | tuple[str, ...]

_SHIPPED = files(__package__) / "policies"
_SHORTEST_TRACE = 4
"""Characters of a removed text that are too telling to stand in one that is kept."""


class Action(StrEnum):
    """What becomes of a value."""

    KEEP = "keep"
    REMOVE = "remove"
    REPLACE = "replace"
    HASH = "hash"
    SHIFT = "shift"


_TEXT = frozenset((Action.KEEP, Action.REMOVE, Action.REPLACE, Action.HASH))
_PLAIN = frozenset((Action.KEEP, Action.REMOVE))
_ALLOWED: Mapping[str, frozenset[Action]] = {
    "Manufacturer": _TEXT,
    "ManufacturerModelName": _TEXT,
    "SoftwareVersions": _TEXT,
    "DeviceSerialNumber": _TEXT,
    "OperatorsName": _TEXT,
    "StationName": _TEXT,
    "BarcodeValue": _TEXT,
    "ImageComments": _TEXT,
    "ObjectiveLensPower": _PLAIN,
    "ObjectiveLensNumericalAperture": _PLAIN,
    "ICCProfile": _PLAIN,
    "AcquisitionDateTime": frozenset((Action.KEEP, Action.REMOVE, Action.SHIFT)),
}
_OPEN = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions")
"""Texts that should identify nobody, and are looked through before they are kept."""

_LONGEST = {"StationName": 16}
"""Characters of a replacement; 64 for all others."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of one attribute; `text` takes its place if it is replaced."""

    action: Action
    text: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of every attribute that a vendor's file may feed.

    Parameters
    ----------
    name : str
        Of the shipped policy or, without its suffix, of the file.
    rules : mapping
        Keyword to rule, for every attribute there is.
    """

    name: str
    rules: Mapping[str, Rule]

    @property
    def needs_key(self) -> bool:
        """Whether any rule hashes or shifts."""
        return any(rule.action in (Action.HASH, Action.SHIFT) for rule in self.rules.values())

    def shape(self) -> str:
        """Return the rules as one stable text that UIDs are derived from."""
        return repr([(keyword, str(rule.action), rule.text) for keyword, rule in sorted(self.rules.items())])


@dataclass(frozen=True, slots=True)
class DeidRecord:
    """What was done to one slide.

    Parameters
    ----------
    policy : str
        Name of the policy.
    actions : mapping
        Keyword to what the policy does, also for attributes that this file does not feed.
    cleaned : tuple of str
        Keywords that the policy keeps, but whose text held that of an identifying field: removed.
    """

    policy: str
    actions: Mapping[str, Action]
    cleaned: tuple[str, ...] = ()

    @property
    def longitudinal(self) -> str:
        """Longitudinal Temporal Information Modified (PS3.3 C.12.1): UNMODIFIED, MODIFIED or REMOVED."""
        action = self.actions.get("AcquisitionDateTime", Action.KEEP)
        return {Action.KEEP: "UNMODIFIED", Action.SHIFT: "MODIFIED"}.get(action, "REMOVED")


@cache
def load_policy(name: str = "default") -> Policy:
    """Return a shipped policy by its name, or one of a TOML file by its path.

    Raises
    ------
    UsageError
        If there is none, or it is not a policy; the message names the file and the key.
    """
    path = Path(name)
    shipped = not path.suffix and len(path.parts) == 1
    known = sorted(entry.name.removesuffix(".toml") for entry in _SHIPPED.iterdir() if entry.name.endswith(".toml"))
    if shipped and name not in known:
        raise UsageError(f"de-identification policy {name}: wanted {', '.join(known)} or a TOML file")
    try:
        text = ((_SHIPPED / f"{name}.toml") if shipped else path).read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"de-identification policy {name} cannot be read: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise UsageError(f"de-identification policy {name} is not TOML: {error}") from None
    return _parse(name if shipped else path.stem, name, table)


def _parse(title: str, source: str, table: Mapping[str, Any]) -> Policy:
    strays = sorted(set(table) - {"extends", "attributes"})
    if strays:
        raise UsageError(f"{source}: {strays[0]}: wanted extends or [attributes]")
    base = table.get("extends")
    if base is not None and (not isinstance(base, str) or base == source):
        raise UsageError(f"{source}: extends: wanted the name of a shipped policy")
    attributes = table.get("attributes", {})
    if not isinstance(attributes, dict):
        raise UsageError(f"{source}: attributes: wanted a table")
    rules = dict(load_policy(base).rules) if base else dict.fromkeys(_ALLOWED, Rule(Action.REMOVE))
    for keyword, value in attributes.items():
        rules[keyword] = _parse_rule(f"{source}: attributes.{keyword}", keyword, value)
    return Policy(title, MappingProxyType(rules))


def _parse_rule(place: str, keyword: str, value: object) -> Rule:
    allowed = _ALLOWED.get(keyword)
    if allowed is None:
        raise UsageError(f"{place}: not fed by any slide, wanted one of {', '.join(_ALLOWED)}")
    rule: Rule | None
    wanted = ", ".join(f'"{action}"' for action in sorted(allowed - {Action.REPLACE}))
    if isinstance(value, dict) and set(value) == {"replace"} and isinstance(value["replace"], str):
        rule = Rule(Action.REPLACE, value["replace"].strip())
        longest = _LONGEST.get(keyword, 64)
        if not 0 < len(rule.text) <= longest or "\\" in rule.text or not rule.text.isprintable():
            found = f"replacement of {len(rule.text)} characters"
            raise UsageError(f"{place}: {found}, wanted 1 to {longest} without backslash")
    elif value in (Action.KEEP, Action.REMOVE, Action.HASH, Action.SHIFT):
        rule = Rule(Action(str(value)))
    else:
        rule = None
    if rule is None or rule.action not in allowed:
        also = ' or { replace = "text" }' if Action.REPLACE in allowed else ""
        raise UsageError(f"{place}: {value!r}, wanted {wanted}{also}")
    return rule


def apply_policy(
    policy: Policy,
    values: Mapping[str, Value],
    *,
    patient: str = "",
    key: DeidKey | None = None,
    identifying: Collection[str] = (),
) -> tuple[dict[str, Value], DeidRecord]:
    """Filter what a slide's file says.

    Parameters
    ----------
    policy : Policy
    values : mapping
        Keyword to value, for what the file gives.
    patient : str
        Patient ID, by which dates are shifted.
    key : DeidKey, optional
    identifying : collection of str
        Texts of identifying fields; a kept text that holds one of them is removed.

    Returns
    -------
    dict
        What may be written.
    DeidRecord

    Raises
    ------
    UsageError
        If a rule needs a key, or a shift needs a patient, and there is none.
    """
    if policy.needs_key and key is None:
        raise UsageError(f"de-identification policy {policy.name} hashes or shifts: --deid-key-file is needed")
    traces = [text.casefold() for text in identifying if len(text) >= _SHORTEST_TRACE]
    kept: dict[str, Value] = {}
    cleaned: list[str] = []
    for keyword, value in values.items():
        rule = policy.rules.get(keyword, Rule(Action.REMOVE))
        if rule.action is Action.KEEP and keyword in _OPEN and _holds(value, traces):
            cleaned.append(keyword)
            continue
        result = _apply(rule, keyword, value, patient, key)
        if result is not None:
            kept[keyword] = result
    actions = {keyword: rule.action for keyword, rule in policy.rules.items()}
    return kept, DeidRecord(policy.name, MappingProxyType(actions), tuple(cleaned))


def _apply(rule: Rule, keyword: str, value: Value, patient: str, key: DeidKey | None) -> Value | None:
    """Return what takes the place of a value, None for nothing."""
    if rule.action is Action.KEEP:
        return value
    if rule.action is Action.REPLACE:
        return rule.text
    if rule.action is Action.HASH and key is not None:
        return key.pseudonym(keyword, "\\".join(value) if isinstance(value, tuple) else str(value))
    if rule.action is Action.SHIFT and key is not None and isinstance(value, datetime):
        if not patient:
            raise UsageError("shifting dates needs a Patient ID, by which all slides of a patient shift alike")
        try:
            return value + timedelta(days=key.shift_days(patient))
        except OverflowError:
            return None
    return None


def _holds(value: Value, traces: Collection[str]) -> bool:
    """Whether a text, or any of several, holds an identifying one."""
    texts = value if isinstance(value, tuple) else (value,)
    return any(trace in text.casefold() for text in texts if isinstance(text, str) for trace in traces)
