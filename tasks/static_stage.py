"""The static stage: everything that can be known of a candidate's files without asking the model anything.

Every file is hashed, whatever is wrong with it; the bytes that are measured are hashed in the read that measures
them. The base's files are hashed alike and held against the digests attested when it was onboarded: a swapped base
could make any displacement zero.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gate.domain.checkpoint import Checkpoint, FileDigest, Layout
from gate.domain.errors import InvalidInput, NotMeasurable
from gate.domain.evidence import Defect, DefectCode, Estimate, LayerDisplacement, Measurement, Name
from gate.domain.lineage import LineageHints
from tasks.architecture import code_defects, config_defects, quantised_defects, tokenizer_defects
from tasks.deltas import LoraDelta, WrongBase
from tasks.file_reading import DigestingReader
from tasks.folder_scan import Scan, scan, unmeasured_weights
from tasks.layouts import Located, locate
from tasks.measurements.displacement import Alignment, Displacement
from tasks.safetensors_file import SafetensorsFile, TensorEntry
from tasks.shipped_base import index_defects, shipped_base_defects
from tasks.sweep import Gradients, Progress, Swept, preconditioned_key, sweep_adapter, sweep_alone, sweep_model
from tasks.weights import SafetensorsWeights

BaseFiles = tuple[Located, Checkpoint]
"""A base: where its files lie now, and their digests as they were attested when it was onboarded."""


@dataclass(frozen=True, slots=True)
class StaticResult:
    """What the files say: digests, defects, displacement and alignment, and where the base may be named.

    ``measurements`` and ``layers`` are empty where there was no base, or nothing comparable, or numbers that are
    none; a defect says which.
    """

    checkpoint: Checkpoint
    defects: tuple[Defect, ...]
    measurements: tuple[Measurement, ...] = ()
    layers: tuple[LayerDisplacement, ...] = ()
    hints: LineageHints = field(default_factory=LineageHints)


def inspect_folder(
    folder: Path, base: BaseFiles | None = None, gradients: Path | None = None, progress: Progress | None = None
) -> StaticResult:
    """Hashes every file of a candidate's folder, finds its defects, and measures it against its base.

    ``gradients`` is the base's cached capability gradients, ``progress`` is told the fraction done. Raises NotFound
    where the folder is not there; whatever is wrong inside it is a defect.
    """
    found, seen = locate(folder), scan(folder)
    with ExitStack() as open_files:
        digests = _Digests(found.root, open_files)
        base_digests = _Digests(base[0].root, open_files) if base else None
        stage = _Stage(found, digests, (base[0], base_digests) if base and base_digests else None, open_files)
        swept = stage.sweep(gradients, progress or _quiet)
        checkpoint = Checkpoint(layout=found.layout, files=digests.files(seen.files), **_extent(stage.entries))
        spoofed = list(_base_defects(base, base_digests)) if base and base_digests and swept else []
    defects = [
        # First what is dangerous: that nothing loadable was found beside a pickle is only what follows from it.
        *seen.defects,
        *found.defects,
        *_claims(found, base),
        *_unmeasured(found, seen),
        *stage.defects,
        *spoofed,
    ]
    if swept is None or spoofed:
        return StaticResult(checkpoint, tuple(defects), hints=hints_of(found))
    result = StaticResult(checkpoint, (*defects, *swept.defects), hints=hints_of(found))
    sound = not swept.displacement.non_finite and swept.displacement.parameters > 0
    return _measured(result, swept.displacement) if sound else result


def hints_of(found: Located) -> LineageHints:
    """What the artifacts themselves say about the base; tags and the training run are added by whoever has them."""
    metadata = found.mlmodel.get("metadata")
    flavor, adapter = found.transformers_flavor, found.adapter_config
    return LineageHints(
        mlmodel_base=_text(metadata, "base_model") if isinstance(metadata, dict) else None,
        adapter_base=_text(adapter, "base_model_name_or_path"),
        adapter_revision=_text(adapter, "revision"),
        source_model_name=_text(flavor, "source_model_name"),
        source_model_revision=_text(flavor, "source_model_revision"),
        source_is_base=found.layout is Layout.ADAPTER or not found.weights,
    )


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) and value else None


def _quiet(_fraction: float) -> None:
    """Progress that nobody asked for."""


class _Digests:
    """The digesting readers of one folder's files; what was not read for another reason is hashed in the end."""

    def __init__(self, root: Path, open_files: ExitStack) -> None:
        self.root = root
        self._open: dict[Path, DigestingReader] = {}
        self._open_files = open_files

    def reader(self, path: Path) -> DigestingReader:
        """A reader of the file that hashes what it reads."""
        reader = self._open[path] = DigestingReader(path)
        self._open_files.callback(reader.close)
        return reader

    def files(self, names: tuple[str, ...]) -> tuple[FileDigest, ...]:
        """The digests of these files, in the order given."""
        return tuple(self._file(name) for name in names)

    def _file(self, name: str) -> FileDigest:
        reader = self._open.get(self.root / name)
        # A file that was refused is closed; what it is must be known all the same.
        if reader is None or reader.closed:
            reader = self.reader(self.root / name)
        return FileDigest(path=name, sha256=reader.finish(), size=reader.size)


class _Stage:
    """One candidate's weights held against its base's, with what went wrong as defects and not as errors."""

    def __init__(
        self, found: Located, digests: _Digests, base: tuple[Located, _Digests] | None, open_files: ExitStack
    ) -> None:
        self.found, self.digests, self.base = found, digests, base
        self.open_files = open_files
        self.entries: Mapping[str, TensorEntry] = {}
        self.defects: list[Defect] = []

    def sweep(self, gradients: Path | None, progress: Progress) -> Swept | None:
        """The comparison with the base; ``None`` where there is none or nothing comparable."""
        quantised = list(quantised_defects(self.found))
        self.defects += quantised
        try:
            if self.found.adapter_weights is not None:
                return self._adapter(self.found.adapter_weights, gradients, progress)
            return None if not self.found.weights else self._model(bool(quantised), gradients, progress)
        except WrongBase as error:
            self._note(DefectCode.BASE_MISMATCH, error)
        except NotMeasurable as error:
            self._note(DefectCode.NOT_MEASURABLE, error)
        except InvalidInput as error:
            self._note(DefectCode.ARTIFACTS_UNREADABLE, error)
        return None

    def _model(self, quantised: bool, gradients: Path | None, progress: Progress) -> Swept | None:
        weights = SafetensorsWeights.open(self.found, self.digests.reader)
        self.entries = {name: weights.entry(name) for name in weights.names()}
        self.defects += index_defects(self.found, weights)
        if quantised:
            return None
        if self.base is None:
            self.defects += sweep_alone(weights.files, progress)
            return None
        return sweep_model(_base_weights(*self.base), weights, self._gradients(gradients), progress)

    def _adapter(self, path: Path, gradients: Path | None, progress: Progress) -> Swept | None:
        if not path.is_file():
            return None
        if self.base is None:
            adapter = SafetensorsFile(self.digests.reader(path))
            self.entries = adapter.entries
            self.defects += sweep_alone([adapter], progress)
            return None
        weights = _base_weights(*self.base)
        delta = LoraDelta.open(self.found, weights, self.digests.reader)
        self.entries = delta.adapter.entries
        self.defects += shipped_base_defects(self.found, weights, self.digests.reader)
        return sweep_adapter(weights, delta, self._gradients(gradients), progress)

    def _gradients(self, path: Path | None) -> Gradients:
        gradients = Gradients.open(path)
        self.open_files.callback(gradients.close)
        return gradients

    def _note(self, code: DefectCode, error: Exception) -> None:
        self.defects.append(Defect(code=code, message=str(error)))


def _base_weights(base: Located, digests: _Digests) -> SafetensorsWeights:
    try:
        return SafetensorsWeights.open(base, digests.reader)
    except InvalidInput as error:
        raise WrongBase(f"expected the base's files as they were onboarded, found: {error}") from error


def _claims(found: Located, base: BaseFiles | None) -> Iterator[Defect]:
    yield from code_defects(found)
    if base is not None:
        yield from config_defects(base[0], found)
        yield from tokenizer_defects(base[0], found)


def _unmeasured(found: Located, seen: Scan) -> Iterator[Defect]:
    measured = [*found.weights, *found.shipped_base, *([found.adapter_weights] if found.adapter_weights else [])]
    yield from unmeasured_weights(seen.files, {path.relative_to(found.root).as_posix() for path in measured})


def _base_defects(base: BaseFiles, digests: _Digests) -> Iterator[Defect]:
    """A defect where the base's folder is not, file for file and byte for byte, what was attested."""
    located, attested = base
    present = scan(located.root).files
    now = {file.path: file.sha256 for file in digests.files(present)}
    then = {file.path: file.sha256 for file in attested.files}
    changed = sorted(path for path in {*now, *then} if now.get(path) != then.get(path))
    if changed:
        yield Defect(
            code=DefectCode.BASE_MISMATCH,
            message=f"expected the base's files as they were onboarded, found {', '.join(changed[:3])} changed; "
            "nothing was measured against them: clear the base's cached folder, or onboard the base again",
        )


def _extent(entries: Mapping[str, TensorEntry]) -> dict[str, Any]:
    """The dtype that most numbers have, and how many weights there are."""
    sizes: dict[str, int] = {}
    for entry in entries.values():
        name = str(entry.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + entry.numel
    parameters = sum(entry.numel for entry in entries.values() if entry.is_weight)
    return {"dtype": max(sorted(sizes), key=sizes.__getitem__, default="unknown"), "parameters": parameters}


def _measured(result: StaticResult, d: Displacement) -> StaticResult:
    whole = {
        Name.DISPLACEMENT_NORM: d.norm,
        Name.DISPLACEMENT_RMS: d.rms,
        Name.DISPLACEMENT_RELATIVE: d.relative,
        Name.CHANGED_FRACTION: d.changed_fraction,
    }
    measurements = [Measurement(name=n, estimate=Estimate.exact(v, d.parameters)) for n, v in whole.items()]
    for capability, name, value in _aligned(d.alignment):
        estimate = Estimate.exact(value, d.parameters)
        measurements.append(Measurement(name=name, capability=capability, estimate=estimate))
    layers = (
        LayerDisplacement(tensor=r.tensor, norm=r.norm, base_norm=r.base_norm, parameters=r.parameters)
        for r in d.layers
    )
    return replace(result, measurements=tuple(measurements), layers=tuple(layers))


def _aligned(found: Mapping[str, Alignment]) -> Iterator[tuple[str, Name, float]]:
    """What each capability's gradients say; of preconditioned ones only where the base's profile has them."""
    beside = {preconditioned_key(name) for name in found}
    for capability in sorted(found.keys() - beside):
        plain, other = found[capability], found.get(preconditioned_key(capability))
        yield capability, Name.WORST_CASE_ALIGNMENT, plain.cosine
        yield capability, Name.WORST_CASE_ALIGNMENT_Z, plain.z
        if other is not None:
            yield capability, Name.PRECONDITIONED_ALIGNMENT, other.cosine
            yield capability, Name.PRECONDITIONED_ALIGNMENT_Z, other.z
            yield capability, Name.PREDICTED_LOSS_INCREASE, plain.predicted_loss_change
