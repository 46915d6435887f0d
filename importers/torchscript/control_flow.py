"""``prim::If`` and ``prim::Loop``: folded or unrolled where the condition is known, else recorded as regions.

Whatever a region changes (tensors written in place, lists, attributes) leaves it as a result.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from torch_tvm.dialect.mlir import ir
from torch_tvm.importers.recording.storages import Storage, TensorRef
from torch_tvm.importers.torchscript.evaluator import Env, Evaluator
from torch_tvm.importers.torchscript.graph import Code, Instruction
from torch_tvm.importers.torchscript.joins import Joiner, Slot, StackLeaf, Widener, fill, leaves, match
from torch_tvm.importers.torchscript.signals import CertainError
from torch_tvm.importers.torchscript.values import (
    UNINITIALIZED,
    Container,
    ObjectValue,
    Scalar,
    Stack,
    origins,
)
from torch_tvm.support.errors import ImportFailed

aten = torch.ops.aten

FOREVER = 2**62
UNROLL = 8_192
UNROLL_LIMIT = 200_000
_ATTEMPTS = 12


class Path:
    """One recorded block: what it returned and changed, and the MLIR values of the tensors in that."""

    def __init__(self, ev: Evaluator, block: ir.Block, values: list[Any], written: Any, changed: Any) -> None:
        self.block = block
        self.values = values
        self.containers: dict[int, Container] = {key: each for key, (each, _) in changed.items()}
        self.frozen = {key: each.snapshot() for key, each in self.containers.items()}
        depth = ev.recorder.depth
        self.storages: dict[int, tuple[Storage, ir.Value]] = {
            key: (storage, storage.value) for key, (storage, _) in written.items() if storage.depth < depth
        }
        self.reads: dict[int, tuple[TensorRef, ir.Value]] = {}
        for ref in leaves([*values, *self.frozen.values()]):
            if id(ref) not in self.reads:
                self.reads[id(ref)] = (ref, ev.recorder.read(ref))

    def read_outer(self, ev: Evaluator, wanted: list[Any]) -> None:
        """Read tensors from outside that the block itself did not read; call it outside the block."""
        for ref in leaves([leaf.items if isinstance(leaf, StackLeaf) else leaf for leaf in wanted]):
            if id(ref) not in self.reads:
                self.reads[id(ref)] = (ref, ev.recorder.read(ref))

    def stored(self, storage: Storage) -> ir.Value:
        found = self.storages.get(id(storage))
        return found[1] if found is not None else storage.value

    def contents(self, container: Container) -> Any:
        return self.frozen[id(container)] if id(container) in self.frozen else container.snapshot()


def _record(ev: Evaluator, block: ir.Block, code: Code, env: Env, begin: Callable[[], None] | None = None) -> Path:
    with ev.emitter.block(block), ev.region() as (written, changed):
        if begin is not None:
            begin()
        ev.run(code, env)
        return Path(ev, block, [env[number] for number in code.returns], written, changed)


# -- values at the end of a block --------------------------------------------------------------------------


def _value(ev: Evaluator, path: Path | None, leaf: Any, slot: Slot) -> ir.Value:
    """The MLIR value of one leaf, of the slot's type; emitted at the end of the path's block."""
    wanted = slot.type_in(ev)
    if isinstance(leaf, ir.Value):
        value = leaf
    elif leaf is UNINITIALIZED:
        value = _filler(ev, slot)
    elif isinstance(leaf, StackLeaf):
        value = _stacked(ev, path, leaf)
    elif isinstance(leaf, TensorRef):
        value = _tensor_value(ev, path, leaf)
    else:
        value = ev.scalars.value(leaf, slot.kind)
    if value.type == wanted:
        return value
    return ev.emitter.op("torch.tensor_static_info_cast", [value], [wanted]).result


def _tensor_value(ev: Evaluator, path: Path | None, ref: TensorRef) -> ir.Value:
    if path is not None and id(ref) in path.reads:
        return path.reads[id(ref)][1]
    return ev.recorder.read(ref)


def _filler(ev: Evaluator, slot: Slot) -> ir.Value:
    """Any value of the slot's type, for a path on which nobody reads it."""
    if slot.meta is None:
        return ev.emitter.constant({"int": 0, "float": 0.0, "bool": False}[slot.kind])
    sizes = [size if isinstance(size, int) else 0 for size in slot.meta.shape]
    meta = torch.empty(sizes, dtype=slot.meta.dtype, device="meta")
    return ev.emitter.call(aten.zeros.default, (sizes,), {"dtype": meta.dtype}, [meta])[0]


def _stacked(ev: Evaluator, path: Path | None, leaf: StackLeaf) -> ir.Value:
    items = leaf.items
    if isinstance(items, Container):
        items = items.snapshot()
    if isinstance(items, Stack):
        return _tensor_value(ev, path, items.tensor)
    row = leaf.row
    with ev.mode:
        meta = torch.empty([len(items), *row.shape], dtype=row.dtype)
    if not items:
        return _no_rows(ev, row)
    if leaf.kind == "tensor":
        rows = [_tensor_value(ev, path, item) for item in items]
    else:
        rows = [ev.scalars.tensor(item) for item in items]
    return ev.emitter.call(aten.stack.default, (rows, 0), {}, [meta])[0]


def _no_rows(ev: Evaluator, row: torch.Tensor) -> ir.Value:
    """A stack of no rows, whose sizes are those of the arguments where they have them, and else 0."""
    told = [ev.sizes.told(size) for size in row.shape]
    with ev.mode:
        known = [0 if value is None else size for value, size in zip(told, row.shape, strict=True)]
        meta = torch.empty([0, *known], dtype=row.dtype)
    sizes = [0, *(0 if size is None else size for size in told)]
    return ev.emitter.call(aten.zeros.default, (sizes,), {"dtype": row.dtype}, [meta])[0]


# -- if ----------------------------------------------------------------------------------------------------


def run_if(ev: Evaluator, instruction: Instruction, env: Env) -> None:
    """Evaluate the branch of a known condition, or record both."""
    condition = env[instruction.inputs[0]]
    if not isinstance(condition, Scalar):
        _take(ev, instruction, env, 0 if condition else 1)
        return
    try:
        _record_if(ev, instruction, env, condition)
    except ImportFailed as error:
        raise ev.specialised(error, condition.origin) from error


def _take(ev: Evaluator, instruction: Instruction, env: Env, which: int) -> None:
    code = instruction.blocks[which]
    ev.run(code, env)
    env.update(zip(instruction.outputs, [env[number] for number in code.returns], strict=True))


def _record_if(ev: Evaluator, instruction: Instruction, env: Env, condition: Scalar) -> None:

    trial = ev.emitter.op("torch.prim.If", [condition.value], [], regions=2)
    effects = ev.effects
    paths: list[Path] = []
    try:
        for which, code in enumerate(instruction.blocks):
            try:
                paths.append(_record(ev, trial.regions[which].blocks.append(), code, env))
            except CertainError as error:
                _assert_other(ev, instruction, env, condition, which, error)
                return
        _finish_if(ev, instruction, env, condition, paths, ev.effects != effects)
    finally:
        trial.erase()


def _assert_other(ev: Evaluator, instruction: Instruction, env: Env, condition: Scalar, which: int, error: Any) -> None:
    """The branch ``which`` always raises: demand the other one, and go on with it in place."""
    ev.at(instruction)
    assert_that(ev, ev.scalars.negate(condition) if which == 0 else condition, error.message)
    _take(ev, instruction, env, 1 - which)


def assert_that(ev: Evaluator, condition: Any, message: str) -> None:
    """``torch.runtime.assert``: the runtime raises an error with the message."""
    ev.effects += 1
    text = ir.StringAttr.get(message, ev.emitter.context)
    ev.emitter.op("torch.runtime.assert", [ev.scalars.value(condition, "bool")], [], {"message": text})


def _finish_if(
    ev: Evaluator, instruction: Instruction, env: Env, condition: Scalar, paths: list[Path], has_effects: bool
) -> None:
    ev.at(instruction)
    first, second = paths
    joiner = Joiner(ev, (first.frozen, second.frozen))
    names = [_name(value) for value in instruction.node.outputs()]
    outputs = [joiner.join(a, b, name) for a, b, name in zip(first.values, second.values, names, strict=True)]
    containers = list({**first.containers, **second.containers}.values())
    contents = [_join_contents(ev, joiner, each, first, second) for each in containers]
    storages = list({**first.storages, **second.storages}.values())
    for storage, _ in storages:
        joiner.slots.append(Slot("tensor", storage.meta))
        joiner.pairs.append((first.stored(storage), second.stored(storage)))
    if not joiner.slots and not has_effects:
        results: list[Any] = []
    else:
        results = _emit_if(ev, condition, paths, joiner)
    replace = lambda hole: results[hole.index]
    env.update(zip(instruction.outputs, [fill(output, replace) for output in outputs], strict=True))
    for container, joined in zip(containers, contents, strict=True):
        ev.touch(container)
        container.restore(fill(joined, replace))
    for (storage, _), ref in zip(storages, results[len(results) - len(storages) :], strict=True):
        ev.recorder.write_storage(storage, ref.storage.value)
    _mark_shared(ev, joiner, results)


def _join_contents(ev: Evaluator, joiner: Joiner, container: Container, first: Path, second: Path) -> Any:
    a, b = first.contents(container), second.contents(container)
    what = "the list" if not isinstance(container, ObjectValue) else "the object"
    if isinstance(container, ObjectValue):
        originals = ev.objects.originals
        a, b = (
            {**side, **{k: originals[id(container), k] for k in other if k not in side}}
            if container.source is not None
            else side
            for side, other in ((a, b), (b, a))
        )
        what = container.path or "self"
    return joiner.contents(a, b, what)


def _emit_if(ev: Evaluator, condition: Scalar, paths: list[Path], joiner: Joiner) -> list[Any]:
    for which, path in enumerate(paths):
        path.read_outer(ev, [pair[which] for pair in joiner.pairs])
        with ev.emitter.block(path.block):
            values = [
                _value(ev, path, pair[which], slot) for pair, slot in zip(joiner.pairs, joiner.slots, strict=True)
            ]
            ev.emitter.op("torch.prim.If.yield", values, [])
    types = [slot.type_in(ev) for slot in joiner.slots]
    operation = ev.emitter.op("torch.prim.If", [condition.value], types, regions=2)
    for which, path in enumerate(paths):
        path.block.append_to(operation.regions[which])
    made_from = [condition.origin | origins(list(pair)) for pair in joiner.pairs]
    return [
        slot.value(ev, value, origin)
        for slot, value, origin in zip(joiner.slots, operation.results, made_from, strict=True)
    ]


def _mark_shared(ev: Evaluator, joiner: Joiner, results: list[Any]) -> None:
    """A result that may be an outer tensor itself must not be written in place: eager would change both."""
    for pair, result in zip(joiner.pairs, results, strict=True):
        outer = [leaf for leaf in pair if isinstance(leaf, TensorRef) and leaf.storage.depth <= ev.recorder.depth]
        if outer and isinstance(result, TensorRef):
            ev.share(result, outer)


def _name(value: Any) -> str:
    name = re.sub(r"\.\d+$", "", value.debugName())
    return "a value" if name.isdigit() else f"'{name}'"


# -- loop --------------------------------------------------------------------------------------------------


def run_loop(ev: Evaluator, instruction: Instruction, env: Env) -> None:
    """Unroll while the condition is known and the body small enough, then record what is left as a loop."""
    limit, condition, *carried = (env[number] for number in instruction.inputs)
    code = instruction.blocks[0]
    index = 0
    total = limit * code.size if isinstance(limit, int) and limit < FOREVER else 0
    is_rolled = total > UNROLL
    while not isinstance(limit, Scalar) and not isinstance(condition, Scalar):
        if not condition or index >= limit:
            env.update(zip(instruction.outputs, carried, strict=True))
            return
        if is_rolled or (total == 0 and index * code.size > UNROLL):
            if _try_rolled(ev, instruction, env, (limit, condition, index), carried, max(total, index * code.size)):
                return
            is_rolled, total = False, total or 1
        _iterate(ev, instruction, env, index, carried)
        condition, *carried = (env[number] for number in code.returns)
        index += 1
        if index * code.size > UNROLL_LIMIT:
            raise ev.failure(f"this loop runs more than {index} times and cannot be recorded as a loop")
    _LoopRecord(ev, instruction, env, carried).record(limit, condition, index)


def _iterate(ev: Evaluator, instruction: Instruction, env: Env, index: Any, carried: list[Any]) -> None:
    code = instruction.blocks[0]
    env.update(zip(code.parameters, [index, *carried], strict=True))
    ev.run(code, env)


def _try_rolled(
    ev: Evaluator,
    instruction: Instruction,
    env: Env,
    state: tuple[Any, Any, int],
    carried: list[Any],
    total: int,
) -> bool:
    """Record a long loop as a loop; ``False`` when only unrolling can import it (and it is not too long)."""
    try:
        _LoopRecord(ev, instruction, env, carried).record(*state)
    except ImportFailed:
        if total > UNROLL_LIMIT:
            raise
        return False
    return True


class _LoopRecord:
    """Finds what a loop carries, by recording its body until that no longer changes."""

    def __init__(self, ev: Evaluator, instruction: Instruction, env: Env, carried: list[Any]) -> None:
        self.ev = ev
        self.instruction = instruction
        self.env = env
        self.inits = carried
        self.patterns = list(carried)
        self.containers: dict[int, tuple[Container, Any, Any]] = {}
        self.storages: dict[int, tuple[Storage, Slot]] = {}

    def record(self, limit: Any, condition: Any, start: int) -> None:
        ev = self.ev
        origin = origins([limit, condition])
        try:
            for _ in range(_ATTEMPTS):
                if self._attempt(limit, condition, start):
                    return
        except ImportFailed as error:
            raise ev.specialised(error, origin) from error
        raise ev.failure("what this loop carries changes its type from iteration to iteration")

    def _attempt(self, limit: Any, condition: Any, start: int) -> bool:

        ev = self.ev
        slots = self._slots()
        types = [ev.emitter.types.parse("!torch.int"), *(slot.type_in(ev) for slot in slots)]
        trial = ev.emitter.op("torch.prim.Loop", [ev.emitter.constant(0), ev.emitter.constant(False)], [], regions=1)
        try:
            locations = [ev.emitter.location] * len(types)
            block = trial.regions[0].blocks.append(*types, arg_locs=locations)
            try:
                path = self._body(block, slots, start)
            except CertainError as error:
                self._never(limit, condition, error)
                return True
            if self._widen(path):
                return False
            self._finish(limit, condition, start, path, slots)
            return True
        finally:
            trial.erase()

    def _slots(self) -> list[Slot]:
        structures = [*self.patterns, *(pattern for _, pattern, _ in self.containers.values())]
        slots = [slot for pattern in structures for slot, _ in match(pattern, UNINITIALIZED, {})]
        return [*slots, *(slot for _, slot in self.storages.values())]

    def _body(self, block: ir.Block, slots: list[Slot], start: int) -> Path:
        ev, code = self.ev, self.instruction.blocks[0]
        arguments = list(block.arguments)

        def begin() -> None:
            index = ev.new_symbol()
            torch._check(index >= 0)
            iteration = ev.scalars.add(start, Scalar("int", arguments[0], index))
            values = {id(s): s.value(ev, v, frozenset()) for s, v in zip(slots, arguments[1:], strict=True)}
            replace = lambda slot: values[id(slot)]
            carried = [fill(pattern, replace) for pattern in self.patterns]
            self.env.update(zip(code.parameters, [iteration, *carried], strict=True))
            self._restore(values)

        return _record(ev, block, code, self.env, begin)

    def _restore(self, values: dict[int, Any]) -> None:
        """Containers and memory hold what their slots do, by the slots' ``id``."""
        for container, pattern, _ in self.containers.values():
            self.ev.touch(container)
            container.restore(fill(pattern, lambda slot: values[id(slot)]))
        for storage, slot in self.storages.values():
            self.ev.recorder.write_storage(storage, values[id(slot)].storage.value)
        self._share(values)

    def _share(self, values: dict[int, Any]) -> None:
        """In its first iteration a carried tensor is the tensor from outside."""
        for pattern, init, node_input in zip(
            self.patterns, self.inits, list(self.instruction.node.inputs())[2:], strict=True
        ):
            for slot, leaf in match(pattern, init, {}):
                if isinstance(leaf, TensorRef) and len(node_input.uses()) > 1:
                    self.ev.share(values[id(slot)], [leaf])

    def _widen(self, path: Path) -> bool:
        """Widen the patterns by what one iteration did; whether anything changed."""
        self.ev.at(self.instruction)
        widener = Widener(self.ev, path.frozen)
        names = [_name(value) for value in self.instruction.node.outputs()]
        self.patterns = [
            widener.join(pattern, value, name)
            for pattern, value, name in zip(self.patterns, path.values[1:], names, strict=True)
        ]
        changed = widener.changed
        for key, container in path.containers.items():
            before, init = container.snapshot(), container.snapshot()
            if key in self.containers:
                _, before, init = self.containers[key]
            after = path.frozen[key]
            if isinstance(container, ObjectValue):
                after = {name: after[name] for name in before}
            widened = widener.contents(
                before, after, container.path if isinstance(container, ObjectValue) else "the list"
            )
            changed |= key not in self.containers
            self.containers[key] = (container, widened, init)
        for key, (storage, _) in path.storages.items():
            if key not in self.storages:
                self.storages[key] = (storage, Slot("tensor", storage.meta))
                changed = True
        return changed or widener.changed

    def _finish(self, limit: Any, condition: Any, start: int, path: Path, slots: list[Slot]) -> None:
        ev = self.ev
        after = self._leaves(path.values[1:], path)
        with ev.emitter.block(path.block):
            values = [_value(ev, path, leaf, slot) for leaf, slot in zip(after, slots, strict=True)]
            going_on = ev.scalars.value(path.values[0], "bool")
            ev.emitter.op("torch.prim.Loop.condition", [going_on, *values], [])
        inits = [_value(ev, None, leaf, slot) for leaf, slot in zip(self._leaves(self.inits, None), slots, strict=True)]
        left = limit if start == 0 or (isinstance(limit, int) and limit >= FOREVER) else ev.scalars.sub(limit, start)
        operands = [ev.scalars.value(left, "int"), ev.scalars.value(condition, "bool"), *inits]
        operation = ev.emitter.op("torch.prim.Loop", operands, [slot.type_in(ev) for slot in slots], regions=1)
        path.block.append_to(operation.regions[0])
        self._assign(slots, list(operation.results), origins([limit, condition]))

    def _leaves(self, values: list[Any], path: Path | None) -> list[Any]:
        """Per slot the leaf in ``values``, in the containers and in the storages: after an iteration, or before."""
        frozen = path.frozen if path is not None else {}
        found = [leaf for p, v in zip(self.patterns, values, strict=True) for _, leaf in match(p, v, frozen)]
        for container, pattern, init in self.containers.values():
            contents = init if path is None else path.contents(container)
            found += [leaf for _, leaf in match(pattern, contents, frozen)]
        for storage, _ in self.storages.values():
            found.append(storage.value if path is None else path.stored(storage))
        return found

    def _assign(self, slots: list[Slot], results: list[ir.Value], origin: frozenset[int]) -> None:
        ev = self.ev
        values = {id(s): s.value(ev, v, origin) for s, v in zip(slots, results, strict=True)}
        replace = lambda slot: values[id(slot)]
        outputs = [fill(pattern, replace) for pattern in self.patterns]
        self.env.update(zip(self.instruction.outputs, outputs, strict=True))
        self._restore(values)

    def _never(self, limit: Any, condition: Any, error: Any) -> None:
        """Every iteration raises: demand that there is none."""
        ev = self.ev
        ev.at(self.instruction)
        if not isinstance(condition, Scalar):
            if not isinstance(limit, Scalar):
                raise error
            condition = ev.scalars.binary("gt", limit, 0)
        assert_that(ev, ev.scalars.negate(condition), error.message)
        self.env.update(zip(self.instruction.outputs, self.inits, strict=True))
