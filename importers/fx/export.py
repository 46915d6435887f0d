"""``export``: a program as ``torch.export`` has it, with what PyTorch refuses or forgets seen to,
and its state kept.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.export import ExportedProgram
from torch.export._trace import _export
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from torch_tvm.aten import autocast
from torch_tvm.aten.decompositions import WITHOUT_QUESTIONS
from torch_tvm.importers import attributes
from torch_tvm.importers.fx.failure import DATA, GENERATOR, export_failure
from torch_tvm.importers.fx.open_forms import TRACEABLE, open_form
from torch_tvm.importers.fx.open_sizes import OpenSizes
from torch_tvm.importers.fx.quick_fakes import quick_batch_norms
from torch_tvm.importers.tracing.cumulative_norms import cumulative_norms_unasked
from torch_tvm.importers.tracing.distribution_checks import ConstraintsAsserted
from torch_tvm.importers.tracing.encoder_padding import encoders_hide_padding
from torch_tvm.importers.tracing.known_numbers import NumbersKnown
from torch_tvm.importers.tracing.mask_questions import MasksUnexamined
from torch_tvm.importers.tracing.quiet import quiet_refusals
from torch_tvm.importers.tracing.seeding import seeding_refused
from torch_tvm.importers.user_code import TORCH
from torch_tvm.support.errors import ImportFailed


def export(
    program: torch.nn.Module | Callable[..., Any],
    example_args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    sizes: OpenSizes | None = None,
) -> ExportedProgram:
    """``torch.export.export``, with its failures turned into :class:`ImportFailed` at the user's line.

    Tensors that the program puts in place of its parameters, buffers and attributes are written to those; a program
    that depends on another attribute which it changes is such a failure: export would keep the first value. ``sizes``
    says afterwards whether sizes of ``dynamic_shapes`` were settled that could vary.
    """
    module = program if isinstance(program, torch.nn.Module) else _Function(program)
    exported = functools.partial(_exported, module, example_args, kwargs, dynamic_shapes, sizes or OpenSizes())
    before = attributes.of_module(module)
    state: set[Key] = set()
    try:
        with _watched(module, state) as changed:
            result = exported()
        read = _constants_read(result)
        state |= {key for key, values in changed.items() if _is_state(before[key], values, read)}
        if state:
            with _watched(module, state) as changed:
                result = exported()
    except Exception as error:
        is_function = isinstance(module, _Function)
        scope = getattr(module.forward, "__qualname__", "") if is_function else type(module).__name__
        raise export_failure(scope, error) from error
    finally:
        attributes.forget_new(module, before)
        attributes.assign(module, {key: old for key, (old, _) in _changed_since(module, before).items()})
    if changed:
        _refuse_dependence(module, before, changed, result, exported)
    return result


def _exported(
    program: torch.nn.Module,
    example_args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
    sizes: OpenSizes,
) -> ExportedProgram:
    """One export, whose failures are PyTorch's own."""
    watched = nullcontext() if dynamic_shapes is None else sizes.watching()
    with _export_context(), watched:
        args, named = _distinct((tuple(example_args), dict(kwargs or {})))
        how: dict[str, Any] = {"dynamic_shapes": dynamic_shapes, "strict": False}
        try:
            found = torch.export.export(program, args, named, **how)
            has_wrapped = any(map(is_functorch_wrapped_tensor, found.constants.values()))
        except GuardOnDataDependentSymNode as refusal:  # ``int(x)``: dynamo knows it for ``x.item()``
            has_wrapped = False
            try:
                found = torch.export.export(program, args, named, **how | {"strict": True})
            except Exception:
                raise refusal from None
        except Exception as error:
            has_wrapped = _takes_gradients(error)
            if not has_wrapped:
                raise
        if has_wrapped:  # ``torch.func.grad`` and its kin are there below autograd only
            found = _export(program, args, named, **how, pre_dispatch=False)
        # Under autocast the ops of an export have its results, and only tracing them again shows its casts.
        return found.run_decompositions({}) if autocast.is_active() else found


@contextmanager
def _export_context() -> Iterator[None]:
    """What is changed in PyTorch, and what is refused, while it exports."""
    with (
        warnings.catch_warnings(),
        _quiet_logs(),
        quiet_refusals(),
        quick_batch_norms(),
        _ForgottenRefused(),
        seeding_refused(),
        MasksUnexamined(),
        ConstraintsAsserted(),
        encoders_hide_padding(),
        cumulative_norms_unasked(),
        _WithoutQuestions(),
        NumbersKnown(),
    ):
        warnings.simplefilter("ignore")
        yield


class _Function(torch.nn.Module):
    """A function as the module that ``torch.export`` wants."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        try:
            inspect.signature(function)
            self.forward = _as_forward(function)
        except ValueError:  # a builtin: export names arguments after the signature
            self.forward = lambda *arguments: function(*arguments)


def _as_forward(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with code of the name ``forward``: export notes the lines of no other code."""
    if isinstance(function, types.MethodType):
        return types.MethodType(_as_forward(function.__func__), function.__self__)
    if isinstance(function, functools.partial):
        return functools.partial(_as_forward(function.func), *function.args, **function.keywords)
    if not isinstance(function, types.FunctionType):
        own = getattr(function, "__call__", None)  # noqa: B004
        return _as_forward(own) if isinstance(own, types.MethodType) else function
    code = function.__code__.replace(co_name="forward")
    same = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    same.__kwdefaults__, same.__qualname__ = function.__kwdefaults__, function.__qualname__
    same.__module__, same.__annotations__ = function.__module__, function.__annotations__
    same.__dict__.update(function.__dict__)
    return same


def _takes_gradients(error: Exception) -> bool:
    """Whether an export failed within ``torch.func.grad`` and its kin."""
    frames = traceback.extract_tb(error.__traceback__)
    return any("_functorch/eager_transforms" in frame.filename for frame in frames)


Key = tuple[str, str]
Changed = dict[Key, tuple[Any, Any]]


def _changed_since(program: torch.nn.Module, before: attributes.Attributes) -> Changed:
    return attributes.changes(before, attributes.of_module(program))


def _are_alike(old: Any, new: Any) -> bool:
    """Whether both are tensors of one type."""
    are_tensors = isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor)
    return are_tensors and old.dtype == new.dtype and tuple(old.shape) == tuple(new.shape)


def _is_state(original: Any, values: tuple[Any, Any], read: set[int]) -> bool:
    """Whether an attribute that the program replaces is one that it reads, and can be written."""
    return _are_alike(*values) and _is_read(original, read)


def _is_read(original: Any, read: set[int]) -> bool:
    return any(tensor.untyped_storage().data_ptr() in read for tensor in attributes.tensors(original))


@contextmanager
def _watched(program: torch.nn.Module, state: set[Key]) -> Iterator[Changed]:
    """Collects the attributes that a call of the program changes.

    Registered tensors, and those of ``state``, that it replaces are written instead, at the end of the call.
    """
    changed: Changed = {}
    start: attributes.Attributes = {}

    def enter(module: torch.nn.Module, args: Any) -> None:
        start.update(attributes.of_module(program))

    def leave(module: torch.nn.Module, args: Any, result: Any) -> Any:
        found = _changed_since(program, start)
        written = {
            key: values
            for key, values in found.items()
            if _are_alike(*values) and (key in state or attributes.is_registered(program, key))
        }
        changed.update({key: values for key, values in found.items() if key not in written})
        if not written:
            return None
        olds = {old.untyped_storage()._cdata for old, _ in written.values()}

        def apart(item: Any) -> Any:
            is_old = isinstance(item, torch.Tensor) and item.untyped_storage()._cdata in olds
            return item.clone() if is_old else item

        kept = pytree.tree_map(apart, result)
        values = [(old, new.clone()) for old, new in written.values()]
        with torch.no_grad():
            for old, new in values:
                old.copy_(new)
        attributes.assign(program, {key: old for key, (old, _) in written.items()})
        return kept

    hooks = [program.register_forward_pre_hook(enter, prepend=True), program.register_forward_hook(leave)]
    try:
        yield changed
    finally:
        for hook in hooks:
            hook.remove()


def _refuse_dependence(
    program: torch.nn.Module,
    before: attributes.Attributes,
    changed: Changed,
    result: ExportedProgram,
    exported: Callable[[], ExportedProgram],
) -> None:
    """Raise when what the program changed is what it reads: another export, with it changed, is another graph."""
    read = _constants_read(result)
    for key, (old, new) in changed.items():
        are_tensors = isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor)
        if are_tensors and attributes.is_registered(program, key):
            raise ImportFailed(
                f"the program gives '{'.'.join(filter(None, key))}' another shape or dtype",
                stage="importer: fx",
                advice="keep the shape and dtype of a module's state",
            )
        if _is_read(before[key], read):
            raise _dependent(key)
    after = {key: attributes.with_zeros(new) for key, (_, new) in changed.items()}
    attributes.assign(program, after)
    try:
        again = exported()
        is_same = again.graph_module.code == result.graph_module.code
    except Exception:
        is_same = False
    finally:
        attributes.forget_new(program, before)
        attributes.assign(program, {key: before[key] for key in changed})
    if not is_same:
        raise _dependent(next(iter(changed)))


def _constants_read(program: ExportedProgram) -> set[int]:
    """Addresses of the constants that the graph reads."""
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    specs = [spec for spec in program.graph_signature.input_specs if spec.arg.name in used]
    constants = [program.constants.get(spec.target or "") for spec in specs]
    return {each.untyped_storage().data_ptr() for each in constants if isinstance(each, torch.Tensor)}


def _dependent(key: tuple[str, str]) -> ImportFailed:
    name = ".".join(part for part in key if part)
    return ImportFailed(
        f"the program changes its attribute '{name}' and reads it in the next call",
        stage="importer: fx",
        advice="make it a buffer (register_buffer), or use frontend='torchscript', where it becomes state; "
        "if it is a cache, which a call fills for these sizes, call the program once before",
    )


class _WithoutQuestions(TorchFunctionMode):
    """Has functions that ask for a tensor's values, or settle sizes, give the same without.

    And gives ``masked_select`` a tensor as large as its mask: for another, fake tensors allow too few results.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        func = open_form(TRACEABLE.get(func, func), args, kwargs or {})
        func = WITHOUT_QUESTIONS.get(func, func)
        if func in (torch.masked_select, torch.Tensor.masked_select) and len(args) == 2 and not kwargs:
            args = torch.broadcast_tensors(*args)
        return func(*args, **(kwargs or {}))


class _ForgottenRefused(TorchFunctionMode):
    """Refuses what export forgets: which generator of its own a program draws from, and what it
    assigns to ``.data``.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == torch.Tensor.data.__set__ and not _called_by_torch():
            raise RuntimeError(DATA)
        for given in (*args, *kwargs.values()):
            if isinstance(given, torch.Generator) and given is not torch.default_generator:
                raise RuntimeError(GENERATOR)
        return func(*args, **kwargs)


def _called_by_torch() -> bool:
    """Whether code of torch's calls the function that a mode is asked about; modes ask each other."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_name == "__torch_function__":
        frame = frame.f_back
    return frame.f_code.co_filename.startswith(TORCH)


def _distinct(arguments: Any) -> Any:
    """The arguments with a tensor object of its own for each: export takes one object for one argument."""
    seen: set[int] = set()

    def own(item: Any) -> Any:
        if not isinstance(item, torch.Tensor):
            return item
        if id(item) in seen:
            return item.detach().requires_grad_(item.requires_grad)
        seen.add(id(item))
        return item

    return pytree.tree_map(own, arguments)


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Without torch's log of a failed export: the error that we raise says the same, at the user's line."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


__all__ = ["export"]
