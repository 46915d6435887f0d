"""The methods of a module that was loaded: those that were compiled when it was saved."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from torch_tvm.runtime.module import CompiledModule, refuse_pickling
from torch_tvm.support.errors import InvalidInput


class SavedMethods:
    """Methods by name, other than ``forward``; each has code for one kind of arguments or more.

    ``modules`` are all that were compiled, also ``forward``; ``names`` are those of the program's methods.
    """

    def __init__(self, modules: Sequence[tuple[str, CompiledModule]], names: Sequence[str] = ()) -> None:
        self._modules = list(modules)
        self._names = [name for name in dict.fromkeys([*names, *dict(modules)]) if name != "forward"]

    def __getitem__(self, name: str) -> SavedMethod:
        return SavedMethod(name, [module for method, module in self._modules if method == name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Weights and live state of every method."""
        merged: dict[str, torch.Tensor] = {}
        for _, module in self._modules:
            merged.update(module.own_state_dict())
        return merged

    def codes(self, other: CompiledModule) -> list[CompiledModule]:
        """The code of all methods but ``other``."""
        return [module for _, module in self._modules if module is not other]

    def loaded(self, values: Mapping[str, torch.Tensor]) -> None:
        """Nothing is compiled later that would have to know them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> SavedMethods:
        """A copy with a state of its own; code and weights are shared."""
        modules = [(name, copy.deepcopy(module, memo)) for name, module in self._modules]
        state: dict[str, torch.Tensor] = {}
        for _, module in modules:
            module.share_state(state)
        return SavedMethods(modules, self._names)


class SavedMethod:
    """A method of a loaded module; call it as the program's."""

    def __init__(self, name: str, compiled: Sequence[CompiledModule]) -> None:
        self.name = name
        self.compiled = list(compiled)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raises :class:`InvalidInput` for arguments that fit none of what was saved."""
        if len(self.compiled) == 1:
            return self.compiled[0](*args, **kwargs)
        for module in self.compiled:
            if module.accepts(args, kwargs):
                return module(*args, **kwargs)
        known = "; ".join(map(repr, self.compiled))
        what = f" for arguments like these; there is: {known}" if known else ": it was not compiled by then"
        raise InvalidInput(
            f"no code was saved{what}",
            subject=self.name,
            advice="call the method with them before the module is saved",
        )

    def __repr__(self) -> str:
        return f"<compiled method {self.name}, {len(self.compiled)} times compiled>"

    def __reduce_ex__(self, protocol: Any) -> Any:
        refuse_pickling("a compiled method")


__all__ = ["SavedMethod", "SavedMethods"]
