"""What other people's annotation files hold, checked: numbers, text, XML, YAML; and what is wrong with one annotation as an exception."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import yaml

from saccade.core.errors import UserError, one_line
from saccade.data.annotations import Box
from saccade.data.findings import Finding

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
YAML_BYTES = 1 << 20
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)


class Fault(Exception):
    """What makes one annotation unusable: a code of `findings.KINDS`, and a message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, one_line(message)

    def at(self, path: str, line: int = 0, what: str = "") -> Finding:
        """As a finding in a file; `what` names the annotation where there are no lines."""
        return Finding(self.code, path, f"{one_line(what)}: {self.message}" if what else self.message, line)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without Python's collector of cycles, which goes through millions of new objects time and again: 40 % of reading a large file."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def coordinates(values: Any, count: int | None = None) -> tuple[float, ...]:
    """Numbers of a JSON list, `count` of them if given, all finite; raises Fault."""
    if not isinstance(values, list) or not {int, float}.issuperset(map(type, values)):
        raise Fault("bad-annotation", f"must be a list of numbers, was {shown(values)}")
    if count is not None and len(values) != count:
        raise Fault("bad-annotation", f"must be {count} numbers, was {shown(values)}")
    try:
        found = tuple(map(float, values))
    except OverflowError:  # an integer beyond every float
        raise Fault("not-finite", f"must be finite numbers, was {shown(values)}") from None
    return finite(found)


def number(text: str) -> float:
    """One number as text, perhaps no finite one; raises Fault. Python's own extras (1_000, digits of other scripts) are no numbers."""
    stripped = text.strip()
    if not _NUMBER.fullmatch(stripped):
        raise Fault("bad-annotation", f"must be a number, was {shown(text)}")
    return float(stripped)


def finite(values: tuple[float, ...]) -> tuple[float, ...]:
    """The same numbers; raises Fault where one is not finite."""
    if not all(map(isfinite, values)):
        raise Fault("not-finite", f"must be finite numbers, was {shown(values)}")
    return values


def box(values: tuple[float, ...]) -> Box:
    """Four finite numbers; raises Fault for others."""
    left, top, right, bottom = finite(values)
    return left, top, right, bottom


def ring(values: tuple[float, ...]) -> tuple[float, ...]:
    """The same numbers as x and y by turns; raises Fault for an odd one."""
    if not values or len(values) % 2:
        raise Fault("bad-annotation", f"an outline must be pairs of x and y, was {len(values)} numbers")
    return values


def size(height: Any, width: Any) -> tuple[int, int] | None:
    """(height, width) where both are sensible numbers of pixels; many tools write 0, or nothing."""
    if isinstance(height, int | float) and isinstance(width, int | float) and 1 <= height < 1 << 31 and 1 <= width < 1 << 31:
        return int(height), int(width)
    return None


def text_size(height: str | None, width: str | None) -> tuple[int, int] | None:
    """The same of text."""
    try:
        return size(number(height or ""), number(width or ""))
    except Fault:
        return None


def name(value: Any) -> str:
    """The name of a class: text that is not blank, on one line, or a number; raises Fault."""
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip():
        raise Fault("bad-annotation", f"must name a class, was {shown(value)}")
    return one_line(text) or "?"


def shown(value: Any) -> str:
    """A value in a message: short, on one line."""
    if isinstance(value, list | tuple | dict) and len(value) > 8:
        return f"{type(value).__name__} of {len(value)}"
    try:
        text = one_line(repr(value))
    except (RecursionError, ValueError):  # deep nesting; an integer of more digits than Python writes
        return type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def decode(data: bytes) -> str:
    """A text file, UTF-8 with or without its mark; bytes that are none are kept as Python keeps those of file names."""
    return data.decode("utf-8-sig", "surrogateescape")


def parse_xml(data: bytes) -> Element:
    """An XML file; raises Fault for what is none, and for what declares a document type or entities."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root: Element = fromstring(data, forbid_dtd=True)
        return root
    except ParseError as error:
        raise Fault("bad-annotation", f"not valid XML: {error}") from None
    except DefusedXmlException:
        raise Fault("bad-annotation", "must be plain XML, but declares a document type or entities") from None
    except (ValueError, LookupError, RecursionError) as error:  # an encoding that is none
        raise Fault("bad-annotation", f"not valid XML: {shown(str(error))}") from None


def lines_of(data: bytes, tag: re.Pattern[bytes], count: int) -> list[int]:
    """The lines that the `count` elements of a file begin at, which ElementTree forgets; zeros where several stand in one line."""
    lines = [number for number, line in enumerate(data.split(b"\n"), 1) if tag.search(line)]
    return lines if len(lines) == count else [0] * count


def xml_text(text: str) -> str:
    """Text as XML, in elements and attributes; what no XML can hold becomes a question mark."""
    return escape(_NO_XML.sub("?", text), {'"': "&quot;"})


def xml_name(name: str) -> str:
    """A name for a file that XML must state: bytes that are no UTF-8 as in an address, %E9."""
    return _NO_XML.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", name)


def parse_yaml(data: bytes, where: str) -> Any:
    """A YAML file as text, lists and mappings: every scalar is text, so that a class named `no` stays one.

    Raises UserError for what is no YAML, and for what a list of paths and names does not need: aliases, tags, a key twice, size.
    """
    if len(data) > YAML_BYTES:
        raise UserError(f"must be at most {YAML_BYTES >> 20} MiB, was {len(data) >> 20} MiB", where=where)
    loader: _Loader | None = None
    try:
        loader = _Loader(data)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise UserError(f"not valid YAML: {error.problem or error.context}", where=f"{where}:{line}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"not valid YAML: {shown(str(error))}", where=where) from None
    finally:
        if loader:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """Builds text, lists and mappings, and nothing else."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's own way to say it

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.constructor.ConstructorError(None, None, "anchors and aliases are refused", event.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._plain(node, "str")
        if isinstance(node, yaml.SequenceNode):
            return [self.construct_object(child) for child in self._plain(node, "seq")]
        found: dict[str, Any] = {}
        for key, value in self._plain(node, "map"):
            word = self._plain(key, "str")
            if word in found:
                raise yaml.constructor.ConstructorError(None, None, f"the key {shown(word)} stands there twice", key.start_mark)
            found[word] = self.construct_object(value)
        return found

    def _plain(self, node: yaml.Node, kind: str) -> Any:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            raise yaml.constructor.ConstructorError(None, None, f"must be plain ({kind}), was {shown(node.tag)}", node.start_mark)
        return node.value


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few of many, for a note."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
