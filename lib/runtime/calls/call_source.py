"""Python source of the function that a compiled module's call is, made for its calling convention.

Everything that can be decided once is decided here, so that a call checks what only it can know (plain dense
tensors of the right dtype, no gradient wanted, sizes in range, nobody tracing), enters the VM and unpacks. Anything
unusual goes to ``slow``, any error of the VM to ``recover``: both look at the arguments in detail.

The VM's own checks do not replace these: a reshape of an argument reads its memory as if it were dense, and a
complex dtype ends the process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils import _pytree as pytree

from torch_tvm.aten.dtypes import dtype_name
from torch_tvm.runtime.calls.arguments import ALIGNMENT
from torch_tvm.runtime.calls.convention import Argument, Convention, Size, SizeExpression
from torch_tvm.runtime.calls.overlap import written_arguments
from torch_tvm.runtime.kernel_events import PROFILED
from torch_tvm.runtime.tracing import TRACED

_INDENT = "    "


def call_source(
    convention: Convention,
    *,
    copies: frozenset[int],
    single: bool,
    weights: str,
    has_loops: bool,
    converts: bool,
    device: str,
) -> str:
    """The source of ``call(*args, **kwargs)``.

    ``copies`` are results of ``main`` to clone, ``single`` says that ``main`` returns one tensor and no
    tuple, ``weights`` is the source of the weights among the arguments of ``main``, ``converts`` that its
    results arrive as TVM tensors. The names it uses are those that ``CompiledModule`` binds.
    """
    lines = ["def call(*args, **kwargs):"]
    body = [*_unpack(convention), *_guard(convention, device)]
    parameters = [f"t{i}" for i in range(len(convention.arguments))]
    parameters += [f"state[{i}]" for i in range(len(convention.state))]
    operands = [*parameters, *([weights] if weights else [])]
    body += _enter(operands, has_loops)
    body += _results(convention, parameters, copies, single, converts)
    return "\n".join([*lines, *(_INDENT + line for line in body)]) + "\n"


# -- arguments ---------------------------------------------------------------------------------------------


def _unpack(convention: Convention) -> list[str]:
    """Statements that bind ``a0, a1, …`` or leave for ``slow`` when the nesting is another."""
    count = len(convention.arguments) + len(convention.constants)
    if convention.in_spec is None:
        tree: Any = (tuple(range(count)), {})
    else:
        tree = pytree.tree_unflatten(list(range(count)), convention.in_spec)
    names: dict[int, str] = {}
    for position in range(count):
        if position not in convention.constants:
            names[position] = f"a{len(names)}"
    lines: list[str] = []
    if not _is_plain(tree) or convention.constants:
        return [
            "return slow(args, kwargs)",
        ]
    positional, keyword = tree
    if keyword:
        tests = " or ".join(f"{key!r} not in kwargs" for key in keyword)
        lines.append(f"if len(kwargs) != {len(keyword)} or len(args) != {len(positional)} or {tests}:")
    else:
        lines.append(f"if kwargs or len(args) != {len(positional)}:")
    lines.append(_INDENT + "return slow(args, kwargs)")
    if all(isinstance(item, int) for item in positional) and positional:
        lines.append(f"{', '.join(names[item] for item in positional)}, = args")
    else:
        for index, item in enumerate(positional):
            lines += _unpack_one(item, f"args[{index}]", names)
    for key, item in keyword.items():
        lines += _unpack_one(item, f"kwargs[{key!r}]", names)
    return lines


def _unpack_one(tree: Any, access: str, names: dict[int, str]) -> list[str]:
    if isinstance(tree, int):
        return [f"{names[tree]} = {access}"]
    kind = type(tree).__name__
    lines = [
        f"if type({access}) is not {kind} or len({access}) != {len(tree)}:",
        _INDENT + "return slow(args, kwargs)",
    ]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    if isinstance(tree, dict) and tree:
        lines[0] = lines[0][:-1] + "".join(f" or {key!r} not in {access}" for key in tree) + ":"
    for key, item in items:
        lines += _unpack_one(item, f"{access}[{key!r}]", names)
    return lines


def _is_plain(tree: Any) -> bool:
    if type(tree) is dict:
        return all(isinstance(key, str) for key in tree) and all(map(_is_plain, tree.values()))
    if type(tree) in (tuple, list):
        return all(map(_is_plain, tree))
    return type(tree) is int


def _guard(convention: Convention, device: str) -> list[str]:
    """Leave for ``slow`` unless nobody traces the call and every argument can go to the kernels as it is."""
    lines, unusual, grads = [], [TRACED, PROFILED], []
    for index, argument in enumerate(convention.arguments):
        name = f"a{index}"
        if argument.kind != "tensor":
            kind = argument.kind
            unusual.append(f"type({name}) is not {kind}")
            lines.append(f"t{index} = number({name}, dtype={kind}_dtype) if type({name}) is {kind} else None")
            continue
        lines.append(f"t{index} = view_as_real({name})" if argument.dtype.is_complex else f"t{index} = {name}")
        unusual += _unusual(name, argument, device)
        if convention.layout == "whole":
            unusual.append(f"{name}.storage_offset()")
        if argument.dtype.is_floating_point or argument.dtype.is_complex:
            grads.append(f"{name}.requires_grad")
    if grads:
        unusual.append(f"(grad_enabled() and ({' or '.join(grads)}))")
        unusual.append("forward_ad._current_level >= 0")
    unusual += [*_overlaps(convention), *_ranges(convention)]
    return [
        "try:",
        _INDENT + f"is_unusual = {' or '.join(unusual)}",
        *(_INDENT + line for line in lines),
        "except Exception:",
        _INDENT + "is_unusual = True",
        "if is_unusual:",
        _INDENT + "return slow(args, kwargs)",
    ]


def _unusual(name: str, argument: Argument, device: str) -> list[str]:
    """Conditions under which a tensor argument cannot go to the kernels as it is."""
    is_local = f"{name}.is_cpu" if device == "cpu" else f"{name}.is_cuda"
    conditions = [
        f"type({name}) not in plain",
        f"not {is_local}",
        f"{name}.dtype is not {dtype_name(argument.dtype)}_dtype",
        f"not {name}.is_contiguous()",
        f"{name}.is_neg()",
    ]
    if argument.dtype.is_complex:
        conditions.append(f"{name}.is_conj()")
    if 0 not in argument.sizes:
        conditions.append(f"not {name}.data_ptr()")  # freed, or no memory of its own
    if ALIGNMENT[device] > 1:
        conditions.append(f"{name}.data_ptr() & {ALIGNMENT[device] - 1}")
    return conditions


def _overlaps(convention: Convention) -> list[str]:
    """A test whether an argument that is written shares memory with another."""
    written = written_arguments(convention)
    spans = [
        f"(a{index}.data_ptr(), a{index}.nbytes, {index in written})"
        for index, argument in enumerate(convention.arguments)
        if argument.kind == "tensor"
    ]
    frozen = [f"a{index}.is_inference() and not inference_mode()" for index in written]
    return [*frozen, f"overlaps({', '.join(spans)})"] if written else []


def _ranges(convention: Convention) -> list[str]:
    """Tests for a size out of its symbol's range: the VM checks equality only."""
    tests, seen = [], set()
    for index, argument in enumerate(convention.arguments):
        for axis, size in enumerate(argument.sizes):
            if isinstance(size, str) and size in convention.ranges and size not in seen:
                seen.add(size)
                low, high = convention.ranges[size]
                bounds = [f"s < {low}"] if low > 0 else []
                bounds += [f"s > {high}"] if high < 2**62 else []
                if bounds:
                    test = " or ".join(bounds).replace("s", f"a{index}.shape[{axis}]")
                    tests.append(test)
    places = _places(convention)
    return [*tests, *(f"not {_test(r.condition, places)}" for r in convention.requirements)]


def _places(convention: Convention) -> dict[str, str]:
    """Where a call has the value of each symbol."""
    places: dict[str, str] = {}
    for index, argument in enumerate(convention.arguments):
        for axis, size in enumerate(argument.sizes):
            if isinstance(size, str):
                places.setdefault(size, f"a{index}.shape[{axis}]")
    return places


def _test(size: Size | None, places: Mapping[str, str]) -> str:
    """A condition on sizes as Python source."""
    if not isinstance(size, SizeExpression):
        return places[size] if isinstance(size, str) else str(int(size or 0))
    left, right = _test(size.left, places), _test(size.right, places)
    if size.operation in ("min", "max"):
        return f"{size.operation}({left}, {right})"
    if size.operation == "ceildiv":
        return f"-(-({left}) // {right})"
    return f"({left} {size.operation} {right})"


# -- the call and its results --------------------------------------------------------------------------------


def _enter(operands: Sequence[str], has_loops: bool) -> list[str]:
    call = f"r = local.main({', '.join(operands)})"
    lines = ["if local.threads != torch_threads():", _INDENT + "local.configure()", "try:"]
    if has_loops:
        inner = ["outer = running.vm, running.keeps_iteration"]
        inner += ["running.vm, running.keeps_iteration = local.vm, keeps_iteration", "try:", _INDENT + call]
        inner += ["finally:", _INDENT + "running.vm, running.keeps_iteration = outer"]
    else:
        inner = [call]
    lines += [_INDENT + line for line in inner]
    return [*lines, "except Exception as error:", _INDENT + "return recover(args, kwargs, error)"]


def _results(
    convention: Convention, parameters: Sequence[str], copies: frozenset[int], single: bool, converts: bool
) -> list[str]:
    users = len(convention.results)
    names, lines = [], []
    for index in range(users + len(convention.writes)):
        source = "r" if single else f"item(r, {index})"
        if converts:
            source = f"as_torch({source})"
        if index < users:
            source = _converted(source, convention.results[index], index in copies)
        elif index in copies:
            source += ".clone()"
        names.append(f"y{index}")
        lines.append(f"y{index} = {source}")
    for index, target in zip(range(users, len(names)), convention.writes, strict=True):
        given = f"a{target}" if target < len(convention.arguments) else parameters[target]
        lines.append(f"write({given}, y{index})")
    return [*lines, f"return {_nested(convention, names[:users])}"]


def _converted(source: str, kind: Any, copied: bool) -> str:
    if isinstance(kind, str):
        return f"{kind}({source}.item())"
    if kind.is_complex:
        source = f"view_as_complex({source})"
    return f"{source}.clone()" if copied else source


def _nested(convention: Convention, names: Sequence[str]) -> str:
    leaves = list(names)
    if convention.outputs is not None:
        remaining = iter(names)
        leaves = [
            next(remaining) if output is None else f"fixed[{index}]" for index, output in enumerate(convention.outputs)
        ]
    if convention.out_spec is None:
        return leaves[0] if len(leaves) == 1 else _tuple(leaves)
    tree = pytree.tree_unflatten(list(range(len(leaves))), convention.out_spec)
    if _is_plain(tree):
        return _tree_source(tree, leaves)
    return f"unflatten([{', '.join(leaves)}], out_spec)"


def _tree_source(tree: Any, leaves: Sequence[str]) -> str:
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key!r}: {_tree_source(item, leaves)}" for key, item in tree.items()) + "}"
    if isinstance(tree, list):
        return f"[{', '.join(_tree_source(item, leaves) for item in tree)}]"
    if isinstance(tree, tuple):
        return _tuple([_tree_source(item, leaves) for item in tree])
    return leaves[tree]


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


__all__ = ["call_source"]
