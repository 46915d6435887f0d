"""The lazy device's own text form: what ``torch._C._lazy._get_tensors_text`` gives and ``LTC_SAVE_TENSORS_FILE``
writes.

Device data become arguments, in order: the text has their shapes and dtypes, and no values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from lark import Lark, Token, Transformer, UnexpectedInput

from torch_tvm.aten.calls import overloads_of
from torch_tvm.dialect.module import TensorSpec, TorchModule
from torch_tvm.dialect.types import SCALAR_TYPE, tensor_type_of
from torch_tvm.importers.lazy.graph_text import GraphText, Node, by_value
from torch_tvm.importers.lazy.whole_ops import IMPORTER
from torch_tvm.importers.torchscript.arguments import Fixed
from torch_tvm.importers.torchscript.program import import_graph
from torch_tvm.support.errors import ImportFailed, InvalidInput

GRAMMAR = r"""
start: NEWLINE? "IR" "{" NEWLINE node* "}" NEWLINE?
node: VALUE "=" "[" [types] "]" KIND "(" [operands] ")" ("," attribute)* NEWLINE
types: type ("," type)*
type: DTYPE "[" [sizes] "]"
sizes: INT ("," INT)*
operands: operand ("," operand)*
operand: VALUE ["." INT]
attribute: KEY TEXT?

VALUE: /%\d+/
KIND: /\w+::\w+/
DTYPE: /[A-Z]\w*/
KEY: /[A-Za-z_]\w*=/
TEXT: /[^,\n]+/
INT: /\d+/
NEWLINE: /(\r?\n[ \t]*)+/
%ignore /[ \t]+/
"""

_DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip
_OWN = ("NodeType", "ROOT", "num_outputs", "device", "is_scalar_expand", "scope", "location")
_FORMS = {
    "IntType": "aten::IntImplicit",
    "FloatType": "aten::FloatImplicit",
    "NumberType": "aten::ScalarImplicit",
}
_STAGE = f"importer: {IMPORTER}"


@dataclass(frozen=True)
class Line:
    """One line of a dump: result types, kind, operands with the result each names, attributes as text."""

    name: str
    types: tuple[TensorSpec, ...]
    kind: str
    operands: tuple[tuple[str, int], ...]
    attributes: dict[str, str]
    number: int
    column: int


class _Build(Transformer):
    """The parse tree as :class:`Line`s."""

    def start(self, items: list[Any]) -> list[Line]:
        return [item for item in items if isinstance(item, Line)]

    def node(self, items: list[Any]) -> Line:
        name, types, kind, operands, *attributes = items
        pairs: dict[str, str] = dict(pair for pair in attributes if isinstance(pair, tuple))
        return Line(str(name), tuple(types or ()), str(kind), tuple(operands or ()), pairs, name.line, kind.column)

    def types(self, items: list[Any]) -> list[TensorSpec]:
        return items

    def type(self, items: list[Any]) -> TensorSpec:
        token, sizes = items
        if str(token) not in _DTYPES:
            raise _DtypeError(token)
        return TensorSpec(tuple(sizes or ()), _DTYPES[str(token)])

    def sizes(self, items: list[Any]) -> list[int]:
        return [int(item) for item in items]

    def operands(self, items: list[Any]) -> list[tuple[str, int]]:
        return items

    def operand(self, items: list[Any]) -> tuple[str, int]:
        return str(items[0]), int(items[1] or 0)

    def attribute(self, items: list[Any]) -> tuple[str, str]:
        return str(items[0])[:-1], str(items[1]).strip() if len(items) > 1 else ""


class _DtypeError(Exception):
    def __init__(self, token: Token) -> None:
        super().__init__(str(token))
        self.token = token


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="contextual", maybe_placeholders=True)


def read_dump(text: str, source: str = "-") -> TorchModule:
    """Import one dumped graph; a file with several raises :class:`InvalidInput`, as does one with none.

    Roots become results in order. Raises :class:`ImportFailed` with line and column for malformed text, and
    where an op, its attributes or its declared result do not fit ATen.
    """
    body, first = _only_graph(text, source)
    lines = parse_lines(body, source, first)
    return _Reader(lines, source).module()


def parse_lines(text: str, source: str = "-", first: int = 0) -> list[Line]:
    """The lines of one ``IR { … }``; ``first`` is the number of lines before it in ``source``."""
    from lark.exceptions import VisitError

    try:
        lines: list[Line] = _Build().transform(_parser().parse(text))
    except UnexpectedInput as error:
        column = error.column if error.column > 0 else 1
        line = error.line if error.line > 0 else text.count("\n") + 1
        raise _failure(text, source, first, line, column, _expected(error)) from None
    except VisitError as error:
        if not isinstance(error.orig_exc, _DtypeError):
            raise
        token = error.orig_exc.token
        raise _failure(text, source, first, token.line, token.column, f"no such dtype: {token}") from None
    return [replace(line, number=line.number + first) for line in lines]


def _expected(error: UnexpectedInput) -> str:
    names: list[str] = sorted(
        getattr(error, "accepts", None) or getattr(error, "expected", None) or getattr(error, "allowed", None) or ()
    )
    known = {
        "VALUE": "a value such as %0",
        "KIND": "an op",
        "KEY": "an attribute",
        "NEWLINE": "the end of the line",
    }
    known |= {
        "LSQB": "'['",
        "RSQB": "']'",
        "LPAR": "'('",
        "RPAR": "')'",
        "COMMA": "','",
        "EQUAL": "'='",
        "RBRACE": "'}'",
    }
    return "expected " + " or ".join(known.get(name, name) for name in names) if names else "unexpected text"


def _failure(text: str, source: str, first: int, line: int, column: int, problem: str) -> ImportFailed:
    lines = text.split("\n")
    shown = lines[line - 1] if line <= len(lines) else ""
    return ImportFailed(
        f"{source}:{line + first}:{column}: {problem}\n  {shown}\n  {' ' * (column - 1)}^", stage=_STAGE
    )


def _only_graph(text: str, source: str) -> tuple[str, int]:
    """The only ``IR { … }`` in a text, and how many lines precede it."""
    lines = text.split("\n")
    starts = [index for index, line in enumerate(lines) if line.strip() == "IR {"]
    if len(starts) > 1:
        raise InvalidInput(
            f"{source} holds {len(starts)} graphs",
            stage=_STAGE,
            advice="keep one of them: from 'IR {' to '}'",
        )
    if not starts:
        if any(line.lstrip().startswith("IR") for line in lines):
            return text, 0
        raise InvalidInput(f"{source} holds no graph 'IR {{ … }}'", stage=_STAGE)
    end = next((i for i, line in enumerate(lines) if i > starts[0] and line.strip() == "}"), len(lines) - 1)
    return "\n".join(lines[starts[0] : end + 1]), starts[0]


class _Reader:
    """From lines to a TorchScript graph with its inputs described."""

    def __init__(self, lines: list[Line], source: str) -> None:
        self.lines = lines
        self.source = source
        self.graph = GraphText([], [])
        self.types: dict[str, Line] = {}
        self.constants: list[tuple[str, str, Any]] = []

    def module(self) -> TorchModule:
        roots: dict[int, tuple[str, TensorSpec, Line]] = {}
        for line in self.lines:
            self._line(line)
            self.types[line.name] = line
            self._root(line, roots)
        if sorted(roots) != list(range(len(roots))) or not roots:
            raise InvalidInput(f"{self.source}: the roots of the graph are {sorted(roots)}, not 0, 1, …", stage=_STAGE)
        ordered = [roots[index] for index in range(len(roots))]
        self.graph.returns = [name for name, _, _ in ordered]
        self.graph.inputs += self.constants
        parsed = torch._C.parse_ir(str(self.graph), parse_tensor_constants=True)
        names = [name.removeprefix("%") for name, _, _ in self.graph.inputs]
        module = import_graph(parsed, [what for _, _, what in self.graph.inputs], names, importer=IMPORTER)
        self._check(module, ordered)
        count = len(module.main.type.inputs)
        module.signature.names = [f"data{index}" for index in range(count)]
        module.signature.constants = {}
        module.signature.in_spec = None
        return module

    def _root(self, line: Line, roots: dict[int, tuple[str, TensorSpec, Line]]) -> None:
        """A node of several results is marked with its last root only; those before it are its other results."""
        if "ROOT" not in line.attributes:
            return
        number = int(line.attributes["ROOT"])
        missing = [index for index in range(number) if index not in roots and not self._is_marked(index)]
        taken = missing[-(len(line.types) - 1) :] if len(line.types) > 1 else []
        for result, index in enumerate([*taken, number]):
            roots[index] = (self._value((line.name, result), line), line.types[result], line)

    def _is_marked(self, number: int) -> bool:
        return any(line.attributes.get("ROOT") == str(number) for line in self.lines)

    def _check(self, module: TorchModule, roots: list[tuple[str, TensorSpec, Line]]) -> None:
        for kind, (_, spec, line) in zip(module.main.type.results, roots, strict=True):
            declared = tensor_type_of(torch.empty(spec.shape, dtype=spec.dtype, device="meta"))
            if str(kind) != str(declared):
                raise self._error(line, f"the text declares {declared}, the graph gives {kind}")

    # -- one line ----------------------------------------------------------------------------------------

    def _line(self, line: Line) -> None:
        if line.kind == "lazy_tensors::device_data":
            if len(line.types) != 1:
                raise self._error(line, "device data have one type")
            self.graph.inputs.append((line.name, "Tensor", line.types[0]))
        elif line.kind == "prim::Constant":
            value = _number(line.attributes.get("value", ""), line.attributes.get("type", ""))
            if value is None:
                raise self._error(line, "a constant of this form is not known")
            self._constant(line.name, value)
        elif line.kind == "lazy_tensors::tensor_list":
            operands = [self._value(operand, line) for operand in line.operands]
            self.graph.nodes.append(Node([(line.name, "Tensor[]")], "prim::ListConstruct", "", operands))
        else:
            self._op(line)

    def _op(self, line: Line) -> None:
        overloads = overloads_of(line.kind) if line.kind.startswith("aten::") else []
        if not overloads:
            raise self._error(line, f"no such op: {line.kind}")
        for operand in line.operands:
            self._value(operand, line)
        given = {key: text for key, text in line.attributes.items() if key not in _OWN}
        for schema in (overload._schema for overload in overloads):
            is_out = any(argument.is_out for argument in schema.arguments)
            if is_out or len(schema.returns) != len(line.types):
                continue
            operands = self._operands(line, schema.arguments, given)
            if operands is not None:
                outputs = [
                    (f"{line.name}" if i == 0 else f"%r{line.name[1:]}_{i}", "Tensor") for i in range(len(line.types))
                ]
                self.graph.nodes.append(Node(outputs, by_value(line.kind), self._place(line), operands))
                return
        raise self._error(
            line,
            f"no form of {line.kind} takes {len(line.operands)} operands and {', '.join(given) or 'no attributes'}",
        )

    def _operands(self, line: Line, arguments: Any, given: dict[str, str]) -> list[str] | None:
        """Values for the arguments of a schema, or ``None`` when the line does not fit it."""
        names = {argument.name for argument in arguments}
        free = [argument for argument in arguments if argument.name not in given]
        if not set(given) <= names or len(free) < len(line.operands):
            return None
        if any(not _may_be_absent(argument) for argument in free[len(line.operands) :]):
            return None
        if any(not _accepts(a.type, self._kind(o)) for a, o in zip(free, line.operands, strict=False)):
            return None
        rest = iter(line.operands)
        from_operands = {argument.name: operand for argument, operand in zip(free, rest, strict=False)}
        values = []
        for argument in arguments:
            if argument.name in from_operands:
                values.append(self._converted(from_operands[argument.name], argument.type, line))
            elif argument.name in given:
                value = _attribute(given[argument.name], argument.type)
                if value is _UNREADABLE:
                    return None
                values.append(self._constant(f"%k{len(self.constants)}", value))
            else:
                values.append(self._constant(f"%k{len(self.constants)}", argument.default_value))
        return values

    def _kind(self, operand: tuple[str, int]) -> str:
        line = self.types.get(operand[0])
        if line is None or line.kind == "prim::Constant":
            return "number"
        if line.kind == "lazy_tensors::tensor_list":
            return "list"
        is_rank_0 = line.kind == "lazy_tensors::device_data" and line.types[0].shape == ()
        return "scalar" if is_rank_0 else "tensor"

    def _converted(self, operand: tuple[str, int], kind: Any, line: Line) -> str:
        value = self._value(operand, line)
        while kind.kind() == "OptionalType":
            kind = kind.getElementType()
        form = _FORMS.get(kind.kind())
        if form is None or self._kind(operand) == "number":
            return value
        name = f"%i{len(self.graph.nodes)}"
        result = {"IntType": "int", "FloatType": "float"}.get(kind.kind(), "Scalar")
        self.graph.nodes.append(Node([(name, result)], form, "", [value]))
        return name

    def _value(self, operand: tuple[str, int], line: Line) -> str:
        name, index = operand
        maker = line if name == line.name else self.types.get(name)
        if maker is None or (index and index >= len(maker.types)):
            raise self._error(line, f"{name}{f'.{index}' if index else ''} is not defined before this line")
        return name if index == 0 else f"%r{name[1:]}_{index}"

    def _constant(self, name: str, value: Any) -> str:
        if value is None:
            name = f"%none{len(self.graph.nodes)}"
            self.graph.nodes.append(Node([(name, "NoneType")], "prim::Constant", "", []))
            return name
        kind = type(value).__name__
        if isinstance(value, list):
            kind = f"{type(value[0]).__name__ if value else 'int'}[]"
        self.constants.append((name, kind, Fixed(value)))
        return name

    def _place(self, line: Line) -> str:
        is_plain = '"' not in self.source and "\\" not in self.source
        return f'[source="{self.source}:{line.number}"]' if is_plain else ""

    def _error(self, line: Line, problem: str) -> ImportFailed:
        return ImportFailed(f"{self.source}:{line.number}:{line.column}: {problem}", stage=_STAGE)


_UNREADABLE = object()


def _may_be_absent(argument: Any) -> bool:
    """The backend leaves an optional tensor that is ``None`` out of the operands."""
    return bool(argument.has_default_value()) or argument.type.kind() == "OptionalType"


def _accepts(schema_type: Any, given: str) -> bool:
    kind = schema_type
    while kind.kind() == "OptionalType":
        kind = kind.getElementType()
    wanted = kind.kind()
    if given == "list":
        return wanted == "ListType" and kind.getElementType().kind() in ("TensorType", "OptionalType")
    if given == "tensor":
        return wanted == "TensorType"
    if given == "number":
        return wanted in _FORMS
    return wanted in _FORMS or wanted == "TensorType"


def _attribute(text: str, schema_type: Any) -> Any:
    """The Python value of an attribute's text for a schema type."""
    kind = schema_type
    while kind.kind() == "OptionalType":
        kind = kind.getElementType()
    if text == "null":
        return None
    try:
        if kind.kind() == "ListType":
            readers: dict[str, Any] = {"FloatType": float, "BoolType": lambda item: bool(int(item))}
            element = readers.get(kind.getElementType().kind(), int)
            return [element(item) for item in text.split()]
        if kind.kind() == "BoolType":
            return bool(int(text))
        if kind.kind() == "StringType":
            return text
        if text in _DTYPES:
            return SCALAR_TYPE[_DTYPES[text]]
        if kind.kind() == "FloatType":
            return float(text)
        return int(text) if kind.kind() != "NumberType" or text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return _UNREADABLE


def _number(text: str, kind: str) -> Any:
    try:
        readers: dict[str, Any] = {"Long": int, "Double": float, "Bool": lambda item: bool(int(item))}
        return readers.get(kind, int)(text)
    except ValueError:
        return None


__all__ = ["GRAMMAR", "Line", "parse_lines", "read_dump"]
