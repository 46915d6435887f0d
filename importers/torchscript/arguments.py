"""The user's arguments: from examples and specs to function arguments and TorchScript values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext
from torch.utils import _pytree as pytree

from torch_tvm.dialect.mlir import ir
from torch_tvm.dialect.module import TensorSpec
from torch_tvm.importers.recording.recorder import check_in_place
from torch_tvm.importers.recording.storages import TensorRef
from torch_tvm.importers.symbols import bind_argument_shapes
from torch_tvm.importers.torchscript.attempt import HINTS, Assumptions, Program
from torch_tvm.importers.torchscript.evaluator import Evaluator
from torch_tvm.importers.torchscript.handlers import prims, tensors
from torch_tvm.importers.torchscript.profiles import AnyNumber
from torch_tvm.importers.torchscript.signals import KnownSizes
from torch_tvm.importers.torchscript.values import DictValue, ListValue, Scalar, kind_of, tuple_class
from torch_tvm.support.errors import ImportFailed, InvalidInput

STAGE = "importer: torchscript"
_HINTS = (17, 13, 11, 19, 23, 29)


@dataclass(frozen=True)
class Weight:
    """Stands for a graph input that is a weight: a literal of this name, no argument."""

    tensor: torch.Tensor
    name: str


@dataclass(frozen=True)
class Fixed:
    """Stands for a graph input that is a constant: a small tensor, a number, a list of numbers."""

    value: Any


class Arguments:
    """Creates one function argument per flat run-time argument of the user."""

    def __init__(
        self,
        ev: Evaluator,
        block: ir.Block,
        program: Program,
        examples: tuple[Any, ...],
        assumptions: Assumptions,
    ) -> None:
        self.ev = ev
        self.block = block
        self.program = program
        self.examples = examples
        self.assumptions = assumptions
        self.names: list[str] = []
        self.constants: dict[int, Any] = {}
        self.in_spec: Any = None
        self._tensors: list[TensorRef] = []
        self._dynamic: list[TensorRef] = []

    def values(self) -> list[Any]:
        """One TorchScript value per parameter of the graph (without ``self``)."""
        self.in_spec = pytree.tree_structure((self.examples, {}))
        parameters = self._parameters()
        if len(self.examples) > len(parameters):
            raise InvalidInput(
                f"the program takes {len(parameters)} arguments, {len(self.examples)} were given", stage=STAGE
            )
        values = []
        for index, (name, kind, default) in enumerate(parameters):
            if index < len(self.examples):
                values.append(self._value(self.examples[index], name, kind))
            elif default is _MISSING:
                raise InvalidInput(f"argument '{name}' has no example and no default", stage=STAGE)
            else:
                values.append(prims.constant(self.ev, default))
        return values

    def _parameters(self) -> list[tuple[str, Any, Any]]:
        if self.program.schema is None:
            inputs = list(self.program.graph.inputs())
            names = self.program.keep or [value.debugName() for value in inputs]
            return [(name, value.type(), _MISSING) for name, value in zip(names, inputs, strict=True)]
        arguments = self.program.schema.arguments[1 if self.program.owner is not None else 0 :]
        return [(a.name, a.type, a.default_value if a.has_default_value() else _MISSING) for a in arguments]

    # -- one argument ------------------------------------------------------------------------------------

    def _value(self, example: Any, name: str, kind: Any) -> Any:
        if isinstance(example, Weight):
            return self.ev.objects.tensor(example.tensor, example.name)
        if isinstance(example, Fixed):
            return prims.constant(self.ev, example.value)
        if isinstance(example, (list, tuple, dict)) and not isinstance(example, torch.Size):
            return self._structure(example, name, kind)
        if self.program.schema is not None and kind is not None and not isinstance(example, AnyNumber):
            _check_kind(example, kind, name)
        position = len(self.names)
        self.names.append(name)
        if isinstance(example, (torch.Tensor, TensorSpec)):
            return self._tensor(example, name)
        wanted = _plain_kind(kind)
        if isinstance(example, AnyNumber):
            if position in self.assumptions.constants:
                raise InvalidInput(
                    f"the import needs the value of argument '{name}'",
                    stage=STAGE,
                    advice="pass example_args with the value that it will have",
                )
            return self._number(None, f"{example.kind.capitalize()}Type", position)
        if kind_of(example) is not None and wanted == "TensorType":
            self.constants[position] = example
            return tensors.scalar_tensor(self.ev, example)
        if kind_of(example) is None or position in self.assumptions.constants:
            self.constants[position] = example
            return prims.constant(self.ev, example)
        return self._number(example, wanted, position)

    def _structure(self, example: Any, name: str, kind: Any) -> Any:
        inner = _element_types(kind, example)
        if isinstance(example, dict):
            entries = {key: self._value(item, f"{name}[{key!r}]", inner[0]) for key, item in example.items()}
            return DictValue(entries, _refined(kind))
        items = [
            self._value(item, f"{name}[{i}]", inner[min(i, len(inner) - 1)] if inner else None)
            for i, item in enumerate(example)
        ]
        if isinstance(example, list):
            return ListValue(items, _refined(kind))
        own = _refined(kind)
        named = tuple_class(own.str(), own.annotation_str) if own is not None else None
        return named(*items) if named is not None else tuple(items)

    def _number(self, example: Any, wanted: str, position: int) -> Any:
        kind = {"FloatType": "float", "IntType": "int", "BoolType": "bool"}.get(wanted, kind_of(example))
        types = self.ev.emitter.types
        argument = self.block.add_argument(types.parse(f"!torch.{kind}"), self.ev.emitter.location)
        fake = self.ev.new_symbol() if kind == "int" else None
        return Scalar(kind or "int", argument, fake, frozenset({position}))

    def _tensor(self, example: torch.Tensor | TensorSpec, name: str) -> TensorRef:
        meta = self._meta(example, name)
        argument = self.block.add_argument(self.ev.emitter.types.tensor(meta), self.ev.emitter.location)
        ref = self.ev.recorder.tensor(argument, meta, len(self.block.arguments) - 1)
        self._tensors.append(ref)
        if any(not isinstance(size, int) for size in meta.shape):
            self._dynamic.append(ref)
            self.ev.sizes.add(argument, meta)
        return ref

    def _meta(self, example: torch.Tensor | TensorSpec, name: str) -> torch.Tensor:
        mode = self.ev.mode
        if isinstance(example, torch.Tensor):
            if example.is_quantized or example.is_nested or example.layout != torch.strided:
                raise InvalidInput(f"argument '{name}' is not a plain strided tensor", stage=STAGE)
            with mode:
                return torch.empty(example.shape, dtype=example.dtype)
        if example.shape is None:
            raise InvalidInput(f"argument '{name}' has an unknown rank", stage=STAGE, advice="give its shape")
        index = len(self.block.arguments)
        shape = [
            self.assumptions.known_sizes.get((index, axis)) if size is None else size
            for axis, size in enumerate(example.shape)
        ]
        known = [size for size in shape if size is not None]
        if len(known) == len(shape):
            return _empty(known, example.dtype, mode, name)
        hints = [self._hint(index, axis) if size is None else size for axis, size in enumerate(shape)]
        dynamic = [DimDynamic.DYNAMIC if size is None else DimDynamic.STATIC for size in shape]
        like = _empty(hints, example.dtype, FakeTensorMode(), name)  # the hints may be large
        return mode.from_tensor(like, symbolic_context=StatelessSymbolicContext(dynamic_sizes=dynamic))

    def _hint(self, index: int, axis: int) -> int:
        own = self.assumptions.sizes.get((index, axis))
        return own or self.assumptions.hint or _HINTS[axis % len(_HINTS)]

    # -- after the program -------------------------------------------------------------------------------

    def writes(self) -> list[tuple[int, ir.Value]]:
        """The user's tensors that the program changed: argument index and new value."""
        found = []
        for ref in self._tensors:
            index = ref.made.storage.argument
            assert index is not None
            check_in_place(ref, f"argument {index}")
            if ref.storage.value != self.block.arguments[index]:
                found.append((index, self.ev.recorder.read(TensorRef(ref.made))))
        return found

    def bind_sizes(self) -> None:
        """Describe unknown sizes at the start of the function; call it when the program has been evaluated.

        Sizes that the program needs to be equal have one symbol by then.
        """
        if not self._dynamic:
            return
        known: dict[tuple[int, int], int] = {}
        for ref in self._dynamic:
            known |= self._known_sizes(ref)
        if known:
            raise KnownSizes(known)
        ranges = self.ev.sizes.final_ranges()
        first = next(iter(self.block.operations), None)
        count = sum(1 for _ in self.block.operations)
        pairs = [(self.block.arguments[ref.storage.argument or 0], ref.meta) for ref in self._dynamic]
        bind_argument_shapes(self.ev.emitter, pairs, ranges)
        if first is not None:
            for operation in list(self.block.operations)[count:]:
                operation.operation.move_before(first.operation)

    def _known_sizes(self, ref: TensorRef) -> dict[tuple[int, int], int]:
        """Sizes that turned out to be one number, by argument and axis."""
        found = {}
        index = ref.storage.argument or 0
        for axis, size in enumerate(ref.meta.shape):
            if not isinstance(size, int) and size.node.maybe_as_int() is not None:
                known = int(size.node.maybe_as_int())
                is_hint = known == self._hint(index, axis) and (index, axis) not in self.assumptions.asked
                if is_hint and known in (*_HINTS, *HINTS):
                    raise ImportFailed(
                        f"the size of argument {index} along axis {axis} was given as unknown, but the program has "
                        "another form for each size",
                        stage=STAGE,
                        advice="give the size that it has in its TensorSpec",
                    )
                found[index, axis] = known
        return found


class _Missing:
    pass


_MISSING = _Missing()


def _empty(sizes: list[int], dtype: torch.dtype, mode: FakeTensorMode, name: str) -> torch.Tensor:
    """A fake tensor; ``ImportFailed`` where memory has no place for so many elements."""
    try:
        with mode:
            return torch.empty(sizes, dtype=dtype)
    except (RuntimeError, TypeError) as error:  # it has a bound of its own for 2 ** 63
        raise ImportFailed(
            f"argument '{name}' of sizes {sizes} is no tensor: {error}", advice="give other sizes"
        ) from None


def _check_kind(example: Any, kind: Any, name: str) -> None:
    """Whether an example fits the type that the program declares."""
    wanted = _plain_kind(kind)
    if example is None and kind.kind() in ("OptionalType", "NoneType", "AnyType"):
        return
    accepted: dict[str, Any] = {
        "TensorType": (torch.Tensor, TensorSpec),
        "IntType": int,
        "FloatType": (float, int),
        "BoolType": bool,
        "StringType": str,
        "NumberType": (int, float),
    }
    if wanted in accepted and not isinstance(example, accepted[wanted]):
        given = "a tensor" if isinstance(example, (torch.Tensor, TensorSpec)) else type(example).__name__
        raise InvalidInput(f"argument '{name}' has type {kind.annotation_str}, got {given}", stage=STAGE)


def _refined(kind: Any) -> Any:
    while kind is not None and kind.kind() == "OptionalType":
        kind = kind.getElementType()
    return kind


def _plain_kind(kind: Any) -> str:
    refined = _refined(kind)
    return refined.kind() if refined is not None else ""


def _element_types(kind: Any, example: Any) -> list[Any]:
    own = _refined(kind)
    if own is None:
        return [None]
    if own.kind() == "ListType":
        return [own.getElementType()]
    if own.kind() == "DictType":
        return [own.getValueType()]
    if own.kind() == "TupleType":
        return list(own.elements())
    return [None] * max(1, len(example))
