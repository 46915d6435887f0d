"""Modules and objects of the program: attributes, methods, and the state that it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import torch

from torch_tvm.importers.recording.storages import LiteralStorage, TensorRef
from torch_tvm.importers.state import Brought, address, view_of
from torch_tvm.importers.torchscript import graph
from torch_tvm.importers.torchscript.context import Context
from torch_tvm.importers.torchscript.graph import Code
from torch_tvm.importers.torchscript.handlers import tensors
from torch_tvm.importers.torchscript.values import Container, DictValue, ListValue, ObjectValue, tuple_class

SCRIPT_OBJECTS = (torch._C.ScriptModule, torch._C.ScriptObject)


class _PythonObject:
    """An instance of a script class, which PyTorch hands out as an instance of its Python class."""

    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def getattr(self, name: str) -> Any:
        return getattr(self._instance, name)


def _is_unchanged(before: Any, after: Any) -> bool:
    """Whether two snapshots of a container hold the same things."""
    if isinstance(before, dict) and isinstance(after, dict):
        same_keys = before.keys() == after.keys()
        return same_keys and all(_is_unchanged((before[key],), (after[key],)) for key in before)
    if not isinstance(before, tuple) or not isinstance(after, tuple) or len(before) != len(after):
        return before is after
    pairs = zip(before, after, strict=True)
    return all(a is b or (isinstance(a, (bool, int, float, str)) and a == b) for a, b in pairs)


class Objects:
    """Reads the objects behind the program; one value per tensor and per object keeps aliases aliases."""

    def __init__(self, context: Context, call: Callable[..., Any]) -> None:
        self.context = context
        self._call = call
        self.tensors: dict[int, Brought] = {}
        self.names: dict[int, str] = {}
        self.owners: Mapping[int, tuple[str, torch.Tensor]] = {}
        self._owners: dict[int, TensorRef] = {}
        self._named: list[tuple[str, torch.Tensor]] = []
        self.attributes: list[tuple[Container, Any, str]] = []
        self.unpacked: dict[str, torch.Tensor] = {}
        self.numbers: dict[str, Any] = {}
        self.number_storages: dict[str, Any] = {}
        self.numbers_read: set[str] = set()
        self.originals: dict[tuple[int, str], Any] = {}
        self._objects: dict[Any, ObjectValue] = {}
        self._methods: dict[tuple[str, str], Code] = {}

    def name_weights(self, module: torch.jit.ScriptModule) -> None:
        """Call parameters and buffers what ``state_dict`` calls them, wherever the program finds them."""
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            self.names.setdefault(id(tensor), name)
            self._named.append((name, tensor))

    def object(self, source: Any, path: str) -> ObjectValue:
        found = self._objects.get(source)
        if found is None:
            found = self._objects[source] = ObjectValue(source._type(), source, path)
        return found

    def get(self, target: ObjectValue, name: str, kind: Any = None) -> Any:
        """An attribute, of type ``kind``; of an original object it is converted on its first read."""
        if name in target.attributes:
            return target.attributes[name]
        if target.source is None:
            raise self.context.failure(f"attribute '{name}' is read before it is set")
        path = f"{target.path}.{name}" if target.path else name
        if path in self.numbers:
            value = self.numbers[path]
            self.numbers_read.add(path)
        else:
            value = self.value(target.source.getattr(name), path, kind)
        target.attributes[name] = value
        self.originals[id(target), name] = value
        return value

    def set(self, target: ObjectValue, name: str, value: Any) -> None:
        if target.source is not None:
            self.get(target, name)
        self.context.touch(target)
        target.attributes = {**target.attributes, name: value}

    def value(self, raw: Any, path: str, kind: Any = None) -> Any:
        """A Python object of the program as a TorchScript value."""
        if isinstance(raw, torch.Tensor):
            return self.tensor(raw, path)
        if isinstance(raw, SCRIPT_OBJECTS):
            return self.object(raw, path)
        if isinstance(raw, list):
            return self._kept(ListValue([self.value(item, f"{path}.{i}") for i, item in enumerate(raw)]), path)
        if isinstance(raw, dict):
            entries = {key: self.value(item, f"{path}.{key}") for key, item in raw.items()}
            return self._kept(DictValue(entries), path)
        if isinstance(raw, tuple):
            items = [self.value(item, f"{path}.{i}") for i, item in enumerate(raw)]
            return type(raw)(*items) if hasattr(raw, "_fields") else tuple(items)
        if isinstance(raw, torch.dtype):
            from torch_tvm.dialect.types import SCALAR_TYPE

            return SCALAR_TYPE[raw]
        if isinstance(raw, (bool, int, float, complex, str, Enum, torch.device, torch.Generator, type(None))):
            return raw
        if kind is None or kind.kind() != "ClassType":
            raise self.context.failure(f"'{path}' is a Python object of type {type(raw).__name__}")
        found = self._objects[path] = ObjectValue(kind, _PythonObject(raw), path)
        return found

    def _kept(self, container: Container, path: str) -> Container:
        if path != "constant":
            self.attributes.append((container, container.snapshot(), path))
        return container

    def changed_containers(self) -> list[str]:
        """Lists and dicts of the program's objects that it changed in place, by name."""
        return [path for each, before, path in self.attributes if not _is_unchanged(before, each.snapshot())]

    def tensor(self, raw: torch.Tensor, path: str) -> TensorRef:
        found = self.tensors.get(id(raw))
        if found is None:
            if raw.is_mkldnn or raw.is_quantized or raw.is_nested or raw.layout != torch.strided:
                raise self.context.failure(
                    f"tensor '{path}' is not a plain strided tensor ({raw.layout})",
                    advice="import the module before torch.jit.optimize_for_inference or quantisation",
                )
            if raw.is_meta:
                raise self.context.failure(
                    f"tensor '{path}' is on the meta device: it has no values",
                    advice="load the weights first: module.to_empty(device='cpu'), then load_state_dict",
                )
            name = self.names.get(id(raw)) or path or "constant"
            found = self.tensors[id(raw)] = (name, raw, self._placed(raw, name))
        return found[2]

    def _placed(self, raw: torch.Tensor, name: str) -> TensorRef:
        """A tensor of its own, or a view of the one that owns its memory."""
        where = address(raw)
        if where not in self.owners:
            ref = tensors.literal(self.context, raw, name)
            ref.storage.depth = 0
            return ref
        owner_name, memory = self.owners[where]
        if where not in self._owners:
            self._owners[where] = tensors.literal(self.context, memory, owner_name)
            self._owners[where].storage.depth = 0
        owner = self._owners[where]
        return view_of(owner, memory, raw, owner.meta if raw is memory else self.context.fake_of(raw))

    def find_shared(self) -> None:
        """Take up the module's tensors that lie in memory of others which the program writes."""
        storages = [ref.storage for _, _, ref in self.tensors.values()]
        written = {address(each.tensor) for each in storages if isinstance(each, LiteralStorage) and each.is_written}
        for name, tensor in self._named:
            if address(tensor) in written:
                self.tensor(tensor, name)

    def method(self, target: ObjectValue, name: str, types: list[Any], result: Any) -> Code:
        """The body of a method, from the object itself where it has one."""
        key = (target.type.qualified_name() if target.source is not None else str(target.type), name)
        found = self._methods.get(key)
        if found is None:
            found = self._methods[key] = self._method(target, name, types, result)
        return found

    def _method(self, target: ObjectValue, name: str, types: list[Any], result: Any) -> Code:
        if target.source is not None and isinstance(target.source, torch._C.ScriptModule):
            method = target.source._get_method(name)
            return Code(method.graph, method)
        return graph.of_call("prim::CallMethod", name, [target.type, *types[1:]], result)

    def function(self, name: str, types: list[Any], result: Any) -> Code:
        key = (str(types[0]), name)
        found = self._methods.get(key)
        if found is None:
            found = self._methods[key] = graph.of_call("prim::CallFunction", name, types, result)
        return found

    def call_with_hooks(self, target: ObjectValue, name: str, code: Code, args: list[Any]) -> Any:
        """Call the program's own method, and its module's forward hooks around ``forward``, as eager does."""
        call, source = self._call, target.source
        if name != "forward":
            return call(code, [target, *args], "")
        for hook in source._get_forward_pre_hooks():
            changed = call(Code(hook.graph, hook), [target, tuple(args)], "")
            if changed is not None:
                args = list(changed) if isinstance(changed, tuple) else [changed]
        result = call(code, [target, *args], "")
        for hook in source._get_forward_hooks():
            changed = call(Code(hook.graph, hook), [target, tuple(args), result], "")
            result = result if changed is None else changed
        return result

    def found(self) -> list[Brought]:
        """The tensors of the program, in the order of first use."""
        return list(self.tensors.values())

    def brought(self, ref: TensorRef) -> Brought | None:
        """The tensor of the program that this object is."""
        return next((each for each in self.tensors.values() if each[2] is ref), None)

    def read(self) -> list[tuple[str, LiteralStorage]]:
        """The tensors, and the numbers kept as tensors, that the program looked at: name and storage."""
        unread = self.numbers.keys() - self.numbers_read
        return [
            (storage.name, storage)
            for _, _, ref in self.tensors.values()
            if isinstance(storage := ref.storage, LiteralStorage) and storage.is_read and storage.name not in unread
        ]

    def reassigned(self) -> list[tuple[ObjectValue, str, Any, Any]]:
        """Attributes of original objects that were set: object, name, value before, value after."""
        found = []
        for owner in self._objects.values():
            for name, value in owner.attributes.items():
                before = self.originals.get((id(owner), name))
                if before is not value:
                    found.append((owner, name, before, value))
        return found


__all__ = ["Objects", "tuple_class"]
