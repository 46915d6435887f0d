"""``TorchModule``: one canonical Torch dialect module with its weights, state and calling convention."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_tvm.aten.calls import may_be_named
from torch_tvm.dialect import interpreter, reader, view
from torch_tvm.dialect.mlir import func, ir
from torch_tvm.dialect.signature import Signature
from torch_tvm.dialect.types import DTYPE_TEXT, TensorSpec, TensorType, parse_tensor_type
from torch_tvm.support.errors import ImportFailed, InvalidInput, SourceLocation, UnsupportedOp

STATE = "torch_tvm.state"
WRITES = "torch_tvm.writes"
LAYOUT = "torch_tvm.layout"
MEMORY_ORDER = "torch_tvm.memory_order"
SIGNATURE = "torch_tvm.signature"
STATE_VALUES = "torch_tvm.state_values"


class TorchModule:
    """A PyTorch program as a Torch dialect module.

    ``mlir`` is the module, ``weights`` the tensors behind its ``dense_resource`` literals by name, ``state``
    the live tensors of mutable buffers by name (order of the function attribute ``torch_tvm.state``).
    ``weights`` alias the memory of the program that was imported; :meth:`check_weights` tells when it moved.
    ``inlined`` are floating tensors of one element, whose literals hold the value itself.
    ``admitted`` are the user's own ops that a module from a file may run; ``None`` where the program is the user's.
    """

    admitted: frozenset[str] | None = None

    def __init__(
        self,
        mlir: ir.Module,
        weights: dict[str, torch.Tensor],
        state: dict[str, torch.Tensor] | None = None,
        signature: Signature | None = None,
        inlined: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self.mlir = mlir
        self.weights = weights
        self.state = state or {}
        self.signature = signature or Signature()
        self.inlined = inlined or {}
        self._versions = {name: _version(tensor) for name, tensor in weights.items()}

    @classmethod
    def read(cls, data: str | bytes, source: str, *, on_disk: bool = False, needs_state: bool = True) -> TorchModule:
        """A module from text or bytecode that this process wrote; ``torch_tvm.parse`` reads what others wrote.

        ``source`` is how errors call it, ``on_disk`` says that it is a file with just this data. Without
        ``needs_state`` the text may lack the values of state tensors.
        """
        module = cls(*reader.read(data, source, on_disk))
        if view.functions(module.mlir):
            module._take_attributes(needs_state)
        return module

    def _take_attributes(self, needs_state: bool) -> None:
        """Move the calling convention and the state's values from the entry function to the module."""
        try:
            main = self.main.operation
        except InvalidInput:
            return
        if SIGNATURE in main.attributes:
            self.signature = Signature.from_json(str(main.attributes[SIGNATURE].value))
            del main.attributes[SIGNATURE]
        names = [attribute.value for attribute in main.attributes.get(STATE) or []]
        values = []
        if STATE_VALUES in main.attributes:
            values = view.tensors_of_text(str(main.attributes[STATE_VALUES]))
            del main.attributes[STATE_VALUES]
        if not values and not needs_state:
            return
        if len(names) != len(values):
            raise InvalidInput(
                f"the module names {len(names)} state tensors and has values for {len(values)}",
                subject=STATE,
                advice=view.HOW_TO_PRINT,
            )
        self.state = dict(zip(names, values, strict=True))

    @property
    def main(self) -> func.FuncOp:
        """The entry function: ``@main``, or the only public function."""
        found = view.functions(self.mlir)
        public = [op for op in found.values() if "sym_visibility" not in op.attributes]
        entry = found.get("main") or (public[0] if len(public) == 1 else None)
        if entry is None:
            names = ", ".join(f"@{name}" for name in found) or "none"
            raise InvalidInput(
                f"the module has no entry function; its functions: {names}",
                advice="call the entry @main, or make all functions but one private",
            )
        function: func.FuncOp = entry.opview
        return function

    # -- weights -------------------------------------------------------------------------------------

    def moved_weights(self) -> list[str]:
        """Names of the weights that were changed in place, or given other memory, since the import.

        A weight that a pass added counts from the first time it is seen.
        """
        return [
            name
            for name, tensor in self.weights.items()
            if _version(tensor) != self._versions.setdefault(name, _version(tensor))
        ]

    def check_weights(self) -> None:
        """Raise :class:`InvalidInput` when a weight moved since the import."""
        moved = self.moved_weights()
        if moved:
            more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
            raise InvalidInput(
                f"weights changed since the import: {', '.join(moved[:3])}{more}",
                advice="import the program again, or deep-copy the module before changing the weights",
            )

    def admits(self, name: str) -> bool:
        """Whether an op may run: of a module from a file, one that touches nothing but its
        operands, or that was named.
        """
        return self.admitted is None or may_be_named(name) or name.removeprefix("torch.") in self.admitted

    def check_admitted(self, name: str, place: SourceLocation | None = None) -> None:
        """Raise :class:`UnsupportedOp` for an op that this module, which came from a file, may not run in PyTorch."""
        if self.admits(name):
            return
        short = name.removeprefix("torch.")
        raise UnsupportedOp(
            "a module from a file may only run ops of PyTorch that touch nothing but their operands",
            subject=name,
            location=place,
            advice=f"if you trust the file and the op, parse it with allow_ops=['{short}']",
        )

    # -- text ------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return self.asm(elide=False)

    def __repr__(self) -> str:
        count = sum(1 for _ in view.walk(self.mlir))
        return f"<TorchModule: {count} operations, {len(self.weights)} weights, {len(self.state)} state tensors>"

    def asm(self, elide: bool = True, locations: bool = False) -> str:
        """The module as MLIR text with the calling convention and state as attributes of the entry function.

        ``elide`` leaves out the bytes of weights (such text is for reading; ``parse`` refuses it);
        ``locations`` adds the user's file and line to every operation.
        """
        self.check_weights()
        limit = 0 if elide else None
        text: str = self._complete(state=not elide).get_asm(
            large_resource_limit=limit, large_elements_limit=None, enable_debug_info=locations
        )
        return text.replace("\n\n{-#\n\n#-}", "") if elide else text

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything, weights and locations included: ``.mlir`` is text, ``.mlirbc`` bytecode."""
        extension = os.path.splitext(os.fspath(path))[1]
        if extension not in (".mlir", ".mlirbc"):
            raise InvalidInput(
                f"cannot tell the format from the file name '{os.fspath(path)}'",
                advice="name the file .mlir for text or .mlirbc for bytecode",
            )
        data = self.asm(elide=False, locations=True).encode() if extension == ".mlir" else self.bytecode()
        try:
            with open(path, "wb") as file:
                file.write(data)
        except OSError as error:
            raise InvalidInput(f"cannot write '{os.fspath(path)}': {error.strerror or error}") from error

    def bytecode(self) -> bytes:
        """The whole module as MLIR bytecode, weights and locations included."""
        self.check_weights()
        buffer = io.BytesIO()
        self._complete().write_bytecode(buffer)
        return buffer.getvalue()

    def _complete(self, state: bool = True) -> ir.Operation:
        """A clone whose entry function carries the signature and, if asked, the state's current values."""
        whole = self.mlir.operation.clone()
        context = self.mlir.context
        if self.signature == Signature() and not self.state:
            return whole
        main = TorchModule(whole, {}).main
        if self.signature != Signature():
            main.attributes[SIGNATURE] = ir.StringAttr.get(self.signature.to_json(), context)
        if self.state and state:
            values = ", ".join(_dense_text(tensor) for tensor in self.state.values())
            main.attributes[STATE_VALUES] = ir.Attribute.parse(f"[{values}]", context)
        return whole

    # -- checking ----------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Raise :class:`ImportFailed` when MLIR's verifier, or the convention of this project, is not met."""
        try:
            self.mlir.operation.verify()
        except ir.MLIRError as error:
            raise ImportFailed(
                "; ".join(d.message for d in error.error_diagnostics), subject="MLIR verifier"
            ) from error
        for operation in view.walk(self.mlir):
            name = view.resource_name(operation) if operation.name == "torch.vtensor.literal" else None
            if name is not None and name not in self.weights:
                view.literal(operation, self.weights)
        self._verify_state()

    def _verify_state(self) -> None:
        operation = self.main.operation
        arguments, results = self.main.type.inputs, self.main.type.results
        names = [attribute.value for attribute in operation.attributes.get(STATE) or []]
        if names != list(self.state):
            raise ImportFailed(f"state is {names} in the module and {list(self.state)} beside it", subject=STATE)
        writes = self.writes
        if len(writes) > len(results) or any(not 0 <= index < len(arguments) for index in writes):
            raise ImportFailed(
                f"{writes} does not fit {len(arguments)} arguments and {len(results)} results", subject=WRITES
            )
        for index, result in zip(writes, results[len(results) - len(writes) :], strict=True):
            target, value = parse_tensor_type(arguments[index]), parse_tensor_type(result)
            if target is None or value is None or target.dtype != value.dtype:
                raise ImportFailed(f"argument {index} is {arguments[index]}, its new value {result}", subject=WRITES)

    @property
    def writes(self) -> list[int]:
        """Flat indices of the arguments whose new values are the last results of the entry function."""
        written = self.main.operation.attributes.get(WRITES) or []
        return [int(getattr(index, "value", index)) for index in written]

    @property
    def layout(self) -> str:
        """What the program asks of its arguments: ``"dense"``, ``"whole"`` (they start at the start of their memory as
        well), or nothing.
        """
        asked = self.main.operation.attributes.get(LAYOUT)
        return str(asked.value) if asked is not None else ""

    # -- calling -----------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module op by op in ATen; takes and returns what the imported program did.

        Arguments and state that the program mutates are written back. Raises :class:`InvalidInput` for
        arguments that do not fit.
        """
        self.check_weights()
        flat = [*self.signature.flatten(args, kwargs), *self.state.values()]
        self._check_arguments(flat)
        writes = self.writes
        results = self.run(flat)
        count = len(results) - len(writes)
        targets = [flat[index] for index in writes]
        values = _apart_from(results, targets)
        with torch.no_grad():
            for target, value in zip(targets, values[count:], strict=True):
                target.copy_(value)
        return self.signature.unflatten(values[:count])

    def run(self, args: Sequence[Any]) -> list[Any]:
        """The flat results of the entry function for flat arguments, those of ``torch_tvm.writes`` included.

        Nothing is written back. Raises :class:`UnsupportedOp` for an op that PyTorch does not have and
        :class:`InvalidInput` for a wrong count of arguments or a weight without data.
        """
        entry = ir.StringAttr(self.main.operation.attributes["sym_name"]).value
        return interpreter.run(self.mlir, entry, args, weights=self.weights, admit=self.check_admitted)

    def _check_arguments(self, flat: list[Any]) -> None:
        types = self.main.type.inputs
        if len(flat) != len(types):
            held = len(self.state)
            raise InvalidInput(f"expected {len(types) - held} arguments, got {len(flat) - held}")
        positions = [i for i in range(len(flat) + len(self.signature.constants)) if i not in self.signature.constants]
        for position, value, kind in zip(positions, flat, types, strict=True):
            problem = _mismatch(value, str(kind), parse_tensor_type(kind))
            if problem:
                raise InvalidInput(f"{self.signature.name_of(position)}: {problem}")

    # -- copying -----------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> TorchModule:
        copied = _restore(self.bytecode(), self.signature)
        copied.inlined, copied.admitted = dict(self.inlined), self.admitted
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        survives = Signature.from_json(self.signature.to_json()) == self.signature
        return _restore, (self.bytecode(), None if survives else self.signature, self.admitted)


def _restore(bytecode: bytes, signature: Signature | None, admitted: frozenset[str] | None = None) -> TorchModule:
    module = TorchModule.read(bytecode, "-")
    module.admitted = admitted
    if signature is not None:
        module.signature = replace(signature, names=list(signature.names), constants=dict(signature.constants))
    return module


def _version(tensor: torch.Tensor) -> tuple[int, int]:
    """What changes when a tensor's memory is written or exchanged; inference tensors only show the latter."""
    return (-1 if tensor.is_inference() else tensor._version, tensor.data_ptr())


def _dense_text(tensor: torch.Tensor) -> str:
    """``dense<…> : tensor<…>`` with the tensor's bytes in hexadecimal; booleans as words."""
    dense = tensor.detach().cpu().contiguous()
    kind = f"tensor<{''.join(f'{size}x' for size in dense.shape)}{DTYPE_TEXT[dense.dtype]}>"
    if dense.numel() == 0:
        return f"dense<> : {kind}"
    if dense.dtype == torch.bool:
        return f"dense<{str(dense.tolist()).lower()}> : {kind}"
    return f'dense<"0x{dense.reshape(-1).view(torch.uint8).numpy().tobytes().hex().upper()}"> : {kind}'


def _apart_from(results: list[Any], targets: list[torch.Tensor]) -> list[Any]:
    """Results with those copied that share memory with a tensor about to be written."""
    held = {target.untyped_storage().data_ptr() for target in targets}
    return [
        value.clone()
        if isinstance(value, torch.Tensor) and held and value.untyped_storage().data_ptr() in held
        else value
        for value in results
    ]


_SCALARS: dict[str, tuple[type, ...]] = {
    "!torch.int": (int,),
    "!torch.float": (float, int),
    "!torch.bool": (bool,),
    "!torch.number": (int, float),
    "!torch.str": (str,),
}


def _mismatch(value: Any, text: str, kind: TensorType | None) -> str | None:
    """Why ``value`` is no argument of the type, or ``None`` when it is."""
    if kind is None:
        wanted = _SCALARS.get(text)
        is_wrong = wanted is not None and (
            not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)
        )
        return f"expected {text.removeprefix('!torch.')}, got {type(value).__name__}" if is_wrong else None
    if not isinstance(value, torch.Tensor):
        return f"expected a tensor, got {type(value).__name__}"
    if kind.dtype is not None and value.dtype != kind.dtype:
        return f"expected dtype {kind.dtype}, got {value.dtype}"
    if kind.shape is not None:
        fits = len(kind.shape) == value.dim() and all(
            wanted in (None, size) for wanted, size in zip(kind.shape, value.shape, strict=False)
        )
        if not fits:
            expected = ", ".join("?" if size is None else str(size) for size in kind.shape)
            return f"expected shape [{expected}], got {list(value.shape)}"
    return None


__all__ = [
    "LAYOUT",
    "SIGNATURE",
    "STATE",
    "STATE_VALUES",
    "WRITES",
    "Signature",
    "TensorSpec",
    "TensorType",
    "TorchModule",
]
