"""The result schemas that common actions share."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from synapse_kernel import (
    BaseAction,
    ExportResult,
    InferenceResult,
    Kernel,
    MetricsResult,
    TrainResult,
    UploadResult,
    WeightsResult,
)
from synapse_kernel.models import schema_of

SCHEMAS: list[type[BaseModel]] = [
    ExportResult,
    InferenceResult,
    MetricsResult,
    TrainResult,
    UploadResult,
    WeightsResult,
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: s.__name__)
def test_every_field_is_described(schema: type[BaseModel]):
    assert [] == [name for name, field in schema.model_fields.items() if not field.description]
    assert schema.__doc__
    properties = schema_of(schema)["properties"]
    assert isinstance(properties, dict)
    assert set(schema.model_fields) == set(properties)


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: s.__name__)
def test_unknown_fields_are_refused(schema: type[BaseModel]):
    required = {name: "x" for name, field in schema.model_fields.items() if field.is_required()}

    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        schema(**required, surprise=1)


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        (ExportResult, "exported"),
        (InferenceResult, "processed"),
        (TrainResult, "epochs"),
        (UploadResult, "total_bytes"),
    ],
)
def test_counts_are_not_negative(schema: type[BaseModel], field: str):
    required = {name: "x" for name, f in schema.model_fields.items() if f.is_required()}

    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        schema(**required, **{field: -1})


def test_a_train_result_has_weights_and_metrics():
    result = TrainResult(weights_path="w.pt", metrics={"loss": 0.5}, epochs=3, best_epoch=2)

    assert isinstance(result, WeightsResult)
    assert isinstance(result, MetricsResult)
    assert {
        "metrics": {"loss": 0.5},
        "weights_path": "w.pt",
        "checkpoints": [],
        "epochs": 3,
        "best_epoch": 2,
    } == result.model_dump()


def test_an_action_returns_one_as_a_mapping_or_extends_it(kernel: Kernel):
    class Trained(TrainResult):
        seed: int = 0

    class Train(BaseAction[dict, Trained]):
        def execute(self) -> object:
            return {"weights_path": "w.pt", "seed": 7}

    assert Trained(weights_path="w.pt", seed=7) == kernel.run(Train).unwrap()
