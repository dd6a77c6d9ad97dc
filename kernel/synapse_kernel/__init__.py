"""
A pluggy microkernel that runs ML and data actions, from a laptop to a Ray cluster.

The public names of the package, in one flat namespace; each is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_kernel._version import __version__ as __version__
from synapse_kernel.lazy_names import names_from

# Each under its own name once more: to type checkers that says that the package offers it.
if TYPE_CHECKING:
    from synapse_kernel.actions import BaseAction as BaseAction, action as action
    from synapse_kernel.config import ActionConfig as ActionConfig, PluginConfig as PluginConfig
    from synapse_kernel.context import RuntimeContext as RuntimeContext
    from synapse_kernel.contracts import (
        ActionPlugin as ActionPlugin,
        ActionRef as ActionRef,
        ActionSpec as ActionSpec,
        ErrorInfo as ErrorInfo,
        Executor as Executor,
        InlineExecutor as InlineExecutor,
        Job as Job,
        Outcome as Outcome,
        Resources as Resources,
        RunInfo as RunInfo,
        RunPlace as RunPlace,
        RunRequest as RunRequest,
        Sink as Sink,
        Task as Task,
    )
    from synapse_kernel.emitter import CancelToken as CancelToken
    from synapse_kernel.environment import PluginEnvironment as PluginEnvironment
    from synapse_kernel.errors import (
        ActionNotFoundError as ActionNotFoundError,
        ConfigError as ConfigError,
        ConflictError as ConflictError,
        EntrypointError as EntrypointError,
        EnvError as EnvError,
        HookError as HookError,
        MissingPackageError as MissingPackageError,
        ParamsError as ParamsError,
        PluginError as PluginError,
        RunCancelled as RunCancelled,
        RunFailedError as RunFailedError,
        SettingsError as SettingsError,
        SynapseError as SynapseError,
        TargetNotFoundError as TargetNotFoundError,
        UnknownNameError as UnknownNameError,
        UsageError as UsageError,
        WorkFolderError as WorkFolderError,
    )
    from synapse_kernel.events import (
        Artifact as Artifact,
        Event as Event,
        Log as Log,
        Message as Message,
        Metrics as Metrics,
        Progress as Progress,
        State as State,
    )
    from synapse_kernel.handles import Run as Run
    from synapse_kernel.hookspecs import hookimpl as hookimpl, hookspec as hookspec
    from synapse_kernel.kernel import Kernel as Kernel, run_plugin as run_plugin
    from synapse_kernel.owners import Owner as Owner
    from synapse_kernel.preparation import Plan as Plan
    from synapse_kernel.results import (
        ExportResult as ExportResult,
        InferenceResult as InferenceResult,
        MetricsResult as MetricsResult,
        TrainResult as TrainResult,
        UploadResult as UploadResult,
        WeightsResult as WeightsResult,
    )
    from synapse_kernel.settings import Settings as Settings, load_settings as load_settings
    from synapse_kernel.specs import (
        ActionsSpec as ActionsSpec,
        CommandSpec as CommandSpec,
        ExecutorSpec as ExecutorSpec,
        FormatSpec as FormatSpec,
        IntegrationSpec as IntegrationSpec,
        SchemaSpec as SchemaSpec,
        ServiceSpec as ServiceSpec,
        SinkSpec as SinkSpec,
        StorageSpec as StorageSpec,
        StoreSpec as StoreSpec,
        TemplateSpec as TemplateSpec,
    )
    from synapse_kernel.steps import (
        BaseStep as BaseStep,
        BaseStepContext as BaseStepContext,
        CheckpointError as CheckpointError,
        LoggingStep as LoggingStep,
        Orchestrator as Orchestrator,
        StepFailed as StepFailed,
        StepRegistry as StepRegistry,
        StepResult as StepResult,
        TimingStep as TimingStep,
        ValidationStep as ValidationStep,
        step as step,
    )
    from synapse_kernel.storage import (
        Storage as Storage,
        StorageConfigError as StorageConfigError,
        StorageConnectionError as StorageConnectionError,
        StorageError as StorageError,
        StorageIntegrityError as StorageIntegrityError,
        StorageNotFoundError as StorageNotFoundError,
        StoragePath as StoragePath,
        StoragePermissionError as StoragePermissionError,
        StorageUploadError as StorageUploadError,
        get_storage as get_storage,
    )
    from synapse_kernel.stores import (
        CheckpointStore as CheckpointStore,
        RunBusyError as RunBusyError,
        RunNotFoundError as RunNotFoundError,
        RunQuery as RunQuery,
        RunRecord as RunRecord,
        RunStore as RunStore,
        StoreError as StoreError,
    )
    from synapse_kernel.types import (
        COCODataset as COCODataset,
        Dataset as Dataset,
        DataType as DataType,
        DMDataset as DMDataset,
        DMv1Dataset as DMv1Dataset,
        DMv2Dataset as DMv2Dataset,
        InferenceResults as InferenceResults,
        Model as Model,
        ModelWeights as ModelWeights,
        ONNXModel as ONNXModel,
        PascalVOCDataset as PascalVOCDataset,
        Result as Result,
        TensorRTModel as TensorRTModel,
        TestResults as TestResults,
        YOLODataset as YOLODataset,
        is_compatible as is_compatible,
    )

_HOMES = {
    "actions": "BaseAction action",
    "config": "ActionConfig PluginConfig",
    "context": "RuntimeContext",
    "contracts": "ActionPlugin ActionRef ActionSpec ErrorInfo Executor InlineExecutor Job Outcome Resources "
    "RunInfo RunPlace RunRequest Sink Task",
    "emitter": "CancelToken",
    "environment": "PluginEnvironment",
    "errors": "ActionNotFoundError ConfigError ConflictError EntrypointError EnvError HookError "
    "MissingPackageError ParamsError PluginError RunCancelled RunFailedError SettingsError SynapseError "
    "TargetNotFoundError UnknownNameError UsageError WorkFolderError",
    "events": "Artifact Event Log Message Metrics Progress State",
    "hookspecs": "hookimpl hookspec",
    "kernel": "Kernel run_plugin",
    "results": "ExportResult InferenceResult MetricsResult TrainResult UploadResult WeightsResult",
    "handles": "Run",
    "preparation": "Plan",
    "settings": "Settings load_settings",
    "specs": "ActionsSpec CommandSpec ExecutorSpec FormatSpec IntegrationSpec SchemaSpec ServiceSpec "
    "SinkSpec StorageSpec StoreSpec TemplateSpec",
    "owners": "Owner",
    "steps": "BaseStep BaseStepContext CheckpointError LoggingStep Orchestrator StepFailed StepRegistry "
    "StepResult TimingStep ValidationStep step",
    "storage": "Storage StorageConfigError StorageConnectionError StorageError StorageIntegrityError "
    "StorageNotFoundError StoragePath StoragePermissionError StorageUploadError get_storage",
    "stores": "CheckpointStore RunBusyError RunNotFoundError RunQuery RunRecord RunStore StoreError",
    "types": "COCODataset DMDataset DMv1Dataset DMv2Dataset DataType Dataset InferenceResults Model "
    "ModelWeights ONNXModel PascalVOCDataset Result TensorRTModel TestResults YOLODataset is_compatible",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 - names, computed from the one table above
__getattr__ = names_from(__name__, _HOME_OF)


def __dir__() -> list[str]:
    return sorted(__all__)
