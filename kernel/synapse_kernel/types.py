"""
Semantic types: what an action takes in and gives out, beyond the shape of its data.

They are classes; a type that is more special than another derives from it. Compatibility is directed: what
is produced must be a subtype of what is expected. Users add their own by subclassing `DataType`.
"""

from __future__ import annotations

import re
from typing import ClassVar

from synapse_kernel.errors import SynapseError, listing, suggest


class UnknownDataTypeError(SynapseError):
    """No semantic type has this name; `name` is the one that was asked for."""

    def __init__(self, name: str, known: list[str]) -> None:
        self.name = name
        super().__init__(
            f"No data type is named {name!r}{suggest(name, known)}\n  known: {listing(known, most=40)}"
        )


class DataType:
    """
    The root of the semantic types.

    `name` is how config files write the type: by default the class's name in snake case
    (``YOLODataset`` → ``yolo_dataset``). Types are never instantiated.
    """

    name: ClassVar[str] = "data_type"

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = _snake(cls.__name__)

    @classmethod
    def accepts(cls, produced: type[DataType]) -> bool:
        """Tell whether what is produced can be used where this type is expected."""
        return issubclass(produced, cls)


def _snake(name: str) -> str:
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return parts.lower()


class Dataset(DataType):
    """Any dataset."""


class DMDataset(Dataset):
    """A Datamaker dataset of either version."""

    name = "dm_dataset"


class DMv1Dataset(DMDataset):
    """A Datamaker dataset in the event-based first version."""

    name = "dm_v1_dataset"


class DMv2Dataset(DMDataset):
    """A Datamaker dataset in the collection-based second version."""

    name = "dm_v2_dataset"


class YOLODataset(Dataset):
    """An Ultralytics YOLO dataset."""


class COCODataset(Dataset):
    """A COCO dataset."""


class PascalVOCDataset(Dataset):
    """A Pascal VOC dataset."""


class Model(DataType):
    """Any model."""


class ModelWeights(Model):
    """Trained weights of a framework."""


class ONNXModel(Model):
    """A model in ONNX."""

    name = "onnx_model"


class TensorRTModel(Model):
    """A TensorRT engine."""

    name = "tensorrt_model"


class Result(DataType):
    """Any result."""


class TestResults(Result):
    """Figures of an evaluation."""

    __test__ = False


class InferenceResults(Result):
    """Predictions."""


def data_types() -> dict[str, type[DataType]]:
    """Return every semantic type that was defined so far, by name."""
    found: dict[str, type[DataType]] = {}
    pending: list[type[DataType]] = [DataType]
    while pending:
        kind = pending.pop(0)
        found.setdefault(kind.name, kind)
        pending.extend(kind.__subclasses__())
    return found


def data_type(name: str | type[DataType]) -> type[DataType]:
    """
    Return the semantic type of this name (``yolo_dataset``) or class name (``YOLODataset``).

    A type of a plugin's own that is not imported yet may be named ``module:Type``.

    Raises `UnknownDataTypeError` with the nearest name.
    """
    if isinstance(name, type):
        return name
    if ":" in name:
        return _imported(name)
    known = data_types()
    found = known.get(name) or known.get(_snake(name))
    if found is None:
        by_class = {kind.__name__: kind for kind in known.values()}
        found = by_class.get(name)
    if found is None:
        raise UnknownDataTypeError(name, sorted(known))
    return found


def _imported(name: str) -> type[DataType]:
    import importlib

    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        found = None
    if not (isinstance(found, type) and issubclass(found, DataType)):
        raise UnknownDataTypeError(name, sorted(data_types()))
    return found


def is_compatible(produced: str | type[DataType], expected: str | type[DataType]) -> bool:
    """Tell whether a produced type can be used where another is expected: it must be a subtype."""
    return data_type(expected).accepts(data_type(produced))
