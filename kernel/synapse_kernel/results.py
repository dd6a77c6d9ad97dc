"""
Result schemas that common actions share: pydantic models with described fields.

An action names one as its second type argument, ``BaseAction[Params, TrainResult]``, or derives its own.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class WeightsResult(BaseModel):
    """Weights that an action produced."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    weights_path: str = Field(description="Path of the weights that are to be used from here on.")
    checkpoints: list[str] = Field(default_factory=list, description="Paths of further checkpoints.")


class MetricsResult(BaseModel):
    """Figures that an action measured."""

    model_config = ConfigDict(extra="forbid")

    metrics: dict[str, float] = Field(default_factory=dict, description="Values by the metric's name.")


class TrainResult(WeightsResult, MetricsResult):
    """The outcome of a training: weights and figures."""

    epochs: int = Field(default=0, ge=0, description="Epochs that were trained.")
    best_epoch: int | None = Field(default=None, ge=0, description="The epoch of `weights_path`, from 0.")


class InferenceResult(BaseModel):
    """Predictions for a number of items."""

    model_config = ConfigDict(extra="forbid")

    predictions: list[dict[str, object]] = Field(default_factory=list, description="One entry per item.")
    processed: int = Field(default=0, ge=0, description="Items that were predicted.")
    failed: int = Field(default=0, ge=0, description="Items that could not be.")


class ExportResult(BaseModel):
    """Files that an export wrote."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="The file or folder that holds the export.")
    format: str | None = Field(default=None, description="The format's name.")
    exported: int = Field(default=0, ge=0, description="Items that were written.")
    failed: int = Field(default=0, ge=0, description="Items that could not be.")


class UploadResult(BaseModel):
    """Files that an upload sent."""

    model_config = ConfigDict(extra="forbid")

    uploaded: int = Field(default=0, ge=0, description="Files that were sent.")
    skipped: int = Field(default=0, ge=0, description="Files that were there already.")
    failed: int = Field(default=0, ge=0, description="Files that could not be sent.")
    total_bytes: int = Field(default=0, ge=0, description="Bytes that were sent.")
