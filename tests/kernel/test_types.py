"""Semantic types: their names, and which may stand for which."""

from __future__ import annotations

import pytest

from synapse_kernel import (
    COCODataset,
    Dataset,
    DataType,
    DMDataset,
    DMv1Dataset,
    DMv2Dataset,
    InferenceResults,
    Model,
    ModelWeights,
    ONNXModel,
    PascalVOCDataset,
    Result,
    TensorRTModel,
    TestResults,
    YOLODataset,
    is_compatible,
)
from synapse_kernel.types import UnknownDataTypeError, data_type

NAMES = {
    "data_type": DataType,
    "dataset": Dataset,
    "dm_dataset": DMDataset,
    "dm_v1_dataset": DMv1Dataset,
    "dm_v2_dataset": DMv2Dataset,
    "yolo_dataset": YOLODataset,
    "coco_dataset": COCODataset,
    "pascal_voc_dataset": PascalVOCDataset,
    "model": Model,
    "model_weights": ModelWeights,
    "onnx_model": ONNXModel,
    "tensorrt_model": TensorRTModel,
    "result": Result,
    "test_results": TestResults,
    "inference_results": InferenceResults,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_type_is_found_by_its_name_its_class_name_and_itself(name: str) -> None:
    kind = NAMES[name]

    assert name == kind.name
    assert [kind] * 3 == [data_type(name), data_type(kind.__name__), data_type(kind)]


@pytest.mark.parametrize(
    ("produced", "expected"),
    [
        (YOLODataset, YOLODataset),
        (YOLODataset, Dataset),
        (DMv2Dataset, DMDataset),
        (DMv1Dataset, Dataset),
        (ONNXModel, Model),
        (TestResults, Result),
        (COCODataset, DataType),
    ],
)
def test_a_subtype_may_stand_where_its_parent_is_expected_and_never_the_other_way(
    produced: type[DataType], expected: type[DataType]
) -> None:
    assert is_compatible(produced, expected)
    assert is_compatible(produced.name, expected.name)
    assert (produced is expected) == is_compatible(expected, produced)


@pytest.mark.parametrize(
    ("produced", "expected"),
    [("dataset", "yolo_dataset"), ("coco_dataset", "yolo_dataset"), ("dm_v1_dataset", "dm_v2_dataset")],
)
def test_a_wider_type_or_a_sibling_may_not(produced: str, expected: str) -> None:
    assert not is_compatible(produced, expected)


def test_an_author_adds_a_type_by_deriving() -> None:
    class TiledDataset(YOLODataset):
        pass

    assert ("tiled_dataset", TiledDataset) == (TiledDataset.name, data_type("TiledDataset"))
    assert is_compatible("tiled_dataset", "yolo_dataset")


def test_a_type_may_be_named_by_its_module() -> None:
    assert ONNXModel is data_type("synapse_kernel.types:ONNXModel")


KNOWN = (
    "coco_dataset, data_type, dataset, dm_dataset, dm_v1_dataset, dm_v2_dataset, inference_results, model, "
    "model_weights, onnx_model, pascal_voc_dataset, result, tensorrt_model, test_results"
)


@pytest.mark.parametrize(
    ("name", "first_line"),
    [
        ("yolo_datset", "No data type is named 'yolo_datset'; did you mean 'yolo_dataset'?"),
        ("quux", "No data type is named 'quux'"),
        ("synapse_kernel.types:Nope", "No data type is named 'synapse_kernel.types:Nope'"),
        ("synapse_kernel.types:data_type", "No data type is named 'synapse_kernel.types:data_type'"),
        ("no_such_module:Type", "No data type is named 'no_such_module:Type'"),
    ],
)
def test_an_unknown_type_is_told_with_the_nearest_and_the_known_ones(name: str, first_line: str) -> None:
    with pytest.raises(UnknownDataTypeError) as raised:
        data_type(name)

    first, known = str(raised.value).split("\n  known: ")
    assert first_line == first
    assert set(KNOWN.split(", ")) <= set(known.split(", "))
