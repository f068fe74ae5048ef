"""A pure function of tensors, recorded once as the list of PyTorch's operations that it takes, and replayed.

What a step of a small network costs beside its arithmetic (layers, hooks under vmap, autograd's graph) is the same at
every step. The list is what remains below all that, forward and backward in their order: a replay calls the same
kernels with the same numbers, so not a bit differs, and lets go of every tensor after its last use.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Tape = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]

FORBIDDEN = {
    torch.Tag.nondeterministic_seeded: "draws random numbers",
    torch.Tag.data_dependent_output: "asks for a tensor's value",
    torch.Tag.dynamic_output_shape: "makes a tensor whose shape depends on values",
    torch.Tag.inplace_view: "changes a tensor's shape in place",
}
QUIET = {
    torch.ops.aten.native_batch_norm.default
}  # changes running statistics, which its schema does not say


class Unrecordable(Exception):
    """What a function did that a replay could not do again, in one line."""


def record(
    function: Callable[[], Sequence[Tensor]], inputs: Sequence[Tensor]
) -> tuple[Sequence[Tensor], Tape]:
    """Return the results of a function of `inputs` alone, and its tape, which makes them of other inputs.

    These must have the same shapes, strides and dtypes. Other tensors that the function sees are taken for constants,
    and so is every number of Python. Raises Unrecordable where an operation draws random numbers, asks for a value, or
    changes an input or a constant; and where inputs share memory, so that they could not be told apart.
    """
    recorder = _Recorder(inputs)
    with recorder:
        results = function()
    return results, recorder.tape(len(inputs), results)


class _Line(NamedTuple):
    """An operation of a tape: `made` are the names it gives, "_" where it makes nothing."""

    text: str
    made: tuple[str, ...]
    read: frozenset[str]
    lasting: bool  # it changes what it is given


class _Recorder(TorchDispatchMode):
    """Hears of every operation below autograd, and gives each tensor a name.

    Autograd hands on other Python objects for the same numbers, so a tensor is known by its memory and by how it lies
    there, as long as that memory is held.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.lines: list[_Line] = []
        self.held: dict[str, Any] = {}  # operations, constants and numbers by their names in the tape
        self.names: dict[tuple, tuple[str, StorageWeakRef]] = {}
        self.count = 0
        self.fixed = {t.untyped_storage().data_ptr() for t in inputs if t.numel()}
        if len(self.fixed) < sum(1 for t in inputs if t.numel()):
            raise Unrecordable("two of its inputs share memory")
        for i, t in enumerate(inputs):
            self._name(t, f"i{i}")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        for tag, what in FORBIDDEN.items():
            if tag in func.tags and not _by_number(func, args):
                raise Unrecordable(f"{func} {what}")
        kwargs = kwargs or {}
        read: set[str] = set()
        given = [self._spelt(a, read) for a in args]
        given += [f"{key}={self._spelt(a, read)}" for key, a in kwargs.items()]
        schema = func._schema
        for place, argument in enumerate(schema.arguments):
            changed = args[place] if place < len(args) else kwargs.get(argument.name)
            if argument.is_write and any(
                t.untyped_storage().data_ptr() in self.fixed for t in tree_leaves(changed) if t is not None
            ):
                raise Unrecordable(f"{func} changes an input or a constant")
        results = func(*args, **kwargs)
        several = isinstance(results, (tuple, list))
        shared = any(r.alias_info is not None for r in schema.returns)
        before = self.count
        made = tuple(self._result(t, shared) for t in (results if several else (results,)))
        lasting = schema.is_mutable or func in QUIET
        if self.count > before or lasting:
            left = ", ".join(made) + ("," if several else "")
            self.lines.append(
                _Line(f"{left} = {self._hold(func)}({', '.join(given)})", made, frozenset(read), lasting)
            )
        return results

    def tape(self, inputs: int, results: Sequence[Tensor]) -> Tape:
        """Return the tape, without operations whose results nobody reads."""
        read: set[str] = set()
        last = [self._spelt(t, read) for t in results]
        wanted, lines = set(read), []
        for line in reversed(self.lines):
            if line.lasting or wanted.intersection(line.made):
                wanted |= line.read
                lines.append(line)
        ends: dict[str, _Line] = {}
        for line in lines:  # the last comes first
            for name in (*line.read, *line.made):
                if name not in self.held and name not in read:
                    ends.setdefault(name, line)
        over: dict[int, list[str]] = {}
        for name, line in ends.items():
            over.setdefault(id(line), []).append(name)
        text = ["def tape(inputs):", f" {''.join(f'i{i}, ' for i in range(inputs))} = inputs"]
        for line in reversed(lines):
            text.append(f" {line.text}")
            if id(line) in over:
                text.append(f" {' = '.join(over[id(line)])} = None")
        text.append(f" return {''.join(f'{name}, ' for name in last)}")
        exec(compile("\n".join(text), "<tape>", "exec"), made := dict(self.held))
        return made["tape"]

    def _spelt(self, value: Any, read: set[str]) -> str:
        """Return an argument as the tape says it, and add the names in it to `read`."""
        if isinstance(value, Tensor):
            name = self._known(value)
            if name is None:
                name = self._name(value, self._hold(value))
                self.fixed.add(value.untyped_storage().data_ptr())
            read.add(name)
            return name
        if isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value):
            return f"[{', '.join(self._spelt(v, read) for v in value)}]"
        return self._hold(value)

    def _result(self, made: Any, shared: bool) -> str:
        """Return the name of what an operation made: a known one where it is a tensor that it was given."""
        if not isinstance(made, Tensor):  # nothing, or a size, which is the same at every replay
            return "_"
        if shared and (known := self._known(made)) is not None:
            return known
        self.count += 1
        return self._name(made, f"t{self.count}")

    def _known(self, t: Tensor) -> str | None:
        """Return the name of a tensor, None where it has none or its memory was another's."""
        name, storage = self.names.get(_place(t), (None, None))
        return None if storage is None or storage.expired() else name

    def _name(self, t: Tensor, name: str) -> str:
        self.names[_place(t)] = name, StorageWeakRef(t.untyped_storage())
        return name

    def _hold(self, value: Any) -> str:
        """Return the name of something that is the same at every replay."""
        name = f"k{len(self.held)}"
        self.held[name] = value
        return name


def _by_number(func: Any, args: tuple) -> bool:
    """Return whether an operation chooses by numbers, so that its result has the same shape whatever they are."""
    return func is torch.ops.aten.index.Tensor and not any(
        t.dtype in (torch.bool, torch.uint8) for t in args[1] if t is not None
    )


def _place(t: Tensor) -> tuple:
    return t.untyped_storage().data_ptr(), t.storage_offset(), t.shape, t.stride(), t.dtype
