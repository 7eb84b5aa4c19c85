"""The weights of a checkpoint's safetensors files under their names, each read when it is asked for."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from gate.domain.errors import InvalidInput, NotMeasurable
from tasks.file_reading import PlainReader, Reader
from tasks.layouts import Located
from tasks.safetensors_file import SafetensorsFile, TensorEntry, in_file_order

LAYER = re.compile(r"\.(\d+)\.")
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight")
COMPARED_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class SafetensorsWeights:
    """The weights of one or many safetensors files, read when asked for; implements ``WeightSource``.

    ``names()`` has every stored tensor once, in name order however the files are cut. An output head that is the
    embedding again (configured as tied, and equal) goes by the embedding's name; ``tied`` maps such names.
    """

    files: tuple[SafetensorsFile, ...]
    tied: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    _where: Mapping[str, SafetensorsFile] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        where: dict[str, SafetensorsFile] = {}
        for file in self.files:
            for name in file.entries:
                if name in where:
                    both = f"{where[name].path.name} and {file.path.name}"
                    raise InvalidInput(f"{name}: expected in one file, found in {both}; keep one and register again")
                where[name] = file
        object.__setattr__(self, "_where", MappingProxyType(where))

    @classmethod
    def open(cls, located: Located, reader: Callable[[Path], Reader] = PlainReader) -> "SafetensorsWeights":
        """The weights of a full or sharded checkpoint; InvalidInput where a file is not sound."""
        if not located.weights:
            raise NotMeasurable(f"expected safetensors weights in {located.root.name}, found none; see its defects")
        files: list[SafetensorsFile] = []
        try:
            for path in located.weights:
                files.append(SafetensorsFile(reader(path)))
            weights = cls(tuple(files))
            return cls(weights.files, MappingProxyType(_tied(weights, located.config)))
        except InvalidInput:
            for file in files:
                file.close()
            raise

    def names(self) -> Sequence[str]:
        """Every tensor once, sorted."""
        return sorted(set(self._where) - set(self.tied))

    def in_file_order(self) -> Iterator[str]:
        """The same names in the order in which reading them is one sweep over the files."""
        for file in self.files:
            yield from (name for name, _ in in_file_order(file.entries) if name not in self.tied)

    def entry(self, name: str) -> TensorEntry:
        """Dtype and shape of a tensor; a tied name means the tensor it is tied to."""
        return self._file(name).entries[self.tied.get(name, name)]

    def tensor(self, name: str) -> Tensor:
        """A whole tensor in the dtype it is stored in."""
        return self._file(name).tensor(self.tied.get(name, name))

    def flat(self, name: str, first: int, count: int) -> Tensor:
        """``count`` numbers of a tensor from the ``first``, row-major, in the dtype they are stored in."""
        return self._file(name).flat(self.tied.get(name, name), first, count)

    def close(self) -> None:
        """Closes every file."""
        for file in self.files:
            file.close()

    def __enter__(self) -> "SafetensorsWeights":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _file(self, name: str) -> SafetensorsFile:
        stored = self.tied.get(name, name)
        if stored not in self._where:
            raise InvalidInput(f"expected a tensor {name!r}, found none of that name among {len(self._where)}")
        return self._where[stored]


def _tied(weights: SafetensorsWeights, config: Mapping[str, Any]) -> dict[str, str]:
    """Output heads that are the embedding again. A differing head is a tensor of its own: it would be served."""
    flag = config.get("tie_word_embeddings")
    names = weights.names()
    embedding = next((n for n in names if n.endswith(EMBEDDINGS)), None)
    if flag is False or embedding is None:
        return {}
    if flag and not any(head in names for head in HEADS):
        return {HEADS[0]: embedding}
    return {head: embedding for head in HEADS if head in names and _equal(weights, head, embedding)}


def _equal(weights: SafetensorsWeights, one: str, other: str) -> bool:
    a, b = weights.entry(one), weights.entry(other)
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    runs = ((at, min(COMPARED_AT_ONCE, a.numel - at)) for at in range(0, a.numel, COMPARED_AT_ONCE))
    return all(torch.equal(weights.flat(one, *run), weights.flat(other, *run)) for run in runs)


def block_of(tensor: str) -> str:
    """The layer a tensor belongs to, or ``rest``.

    >>> block_of("model.layers.11.mlp.up_proj.weight"), block_of("lm_head.weight")
    ('11', 'rest')
    """
    found = LAYER.search(tensor)
    return found[1] if found else "rest"
