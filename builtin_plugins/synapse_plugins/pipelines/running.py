"""What every pipeline can do, however it was written: be run, be started, be waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from typing_extensions import Unpack

    from synapse_kernel.contracts import JsonObject, Outcome
    from synapse_kernel.handles import Run
    from synapse_kernel.kernel import Kernel
    from synapse_plugins.pipelines.definition import NodeSpec, PipelineSpec
    from synapse_plugins.pipelines.engine import Launch


class LaunchKeywords(TypedDict, total=False):
    """
    How a pipeline is to be run.

    `resume` is the id of an interrupted run to go on with; `force` lets it go on although the pipeline has
    changed. `use_cache` false takes no cached results. `concurrency` bounds how many nodes run at once.
    `executor` is where nodes run that do not say. `sinks`, `timeout`, `tags`, `record` and `job_id` are those
    of `Kernel.run`; `target` is how the history names the pipeline.
    """

    resume: str | None
    force: bool
    use_cache: bool
    concurrency: int | None
    executor: str | None
    record: bool | None
    target: str | None
    sinks: Sequence[object] | None
    timeout: float | str | timedelta | None
    tags: Sequence[str]
    job_id: str | None


class Runnable:
    """A pipeline that can be run; see `LaunchKeywords` for the options."""

    @property
    def spec(self) -> PipelineSpec:
        """The pipeline as data."""
        raise NotImplementedError

    def join_params(self, given: Mapping[str, object]) -> JsonObject:
        """Return the pipeline's params from those that were given; raises `ParamsError` with all mistakes."""
        raise NotImplementedError

    def params_for(self, node: NodeSpec, scope: Mapping[str, object]) -> Mapping[str, object]:
        """Return what a node's action is given; see `synapse_plugins.pipelines.nodes.Plan`."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of what is kept for a run, as one has ended; another under way loses no more than time."""

    def check_for(self, kernel: Kernel) -> None:
        """Raise `PipelineError` with all that is wrong with the pipeline, if it has not been checked yet."""

    def param_types(self, kernel: Kernel) -> Mapping[str, object]:  # noqa: ARG002 - for those who override it
        """Return the types of the pipeline's params, as far as one can tell."""
        return {}

    def validate_initial_params(self, params: Mapping[str, object] | None = None) -> JsonObject:
        """Return the params that the pipeline would start with; raises `ParamsError` with all mistakes."""
        return self.join_params(params or {})

    def execute(
        self,
        params: Mapping[str, object] | None = None,
        *,
        kernel: Kernel | None = None,
        **options: Unpack[LaunchKeywords],
    ) -> Outcome:
        """
        Run the pipeline to its end and return its outcome; a failed one is an outcome too.

        Without a kernel, one is made from the settings that the command line would use. Raises
        `SynapseError` for what is wrong before anything starts.
        """
        if kernel is None:
            from synapse_kernel.kernel import Kernel
            from synapse_kernel.settings import load_settings

            with Kernel(load_settings(defaults={"store": "auto"})) as own:
                return self.execute(params, kernel=own, **options)
        launch, rest = self._launch(kernel, params, options)
        return launch.execute(**rest)

    def submit(
        self,
        params: Mapping[str, object] | None = None,
        *,
        kernel: Kernel,
        **options: Unpack[LaunchKeywords],
    ) -> Run:
        """Start the pipeline and return its run's handle; errors are those of `execute`."""
        launch, rest = self._launch(kernel, params, options)
        return launch.submit(**rest)

    @staticmethod
    def wait(run: Run, timeout: float | None = None) -> Outcome:
        """Wait for a submitted run; raises `TimeoutError` after `timeout` seconds, the run going on."""
        return run.result(timeout)

    def _launch(
        self, kernel: Kernel, params: Mapping[str, object] | None, options: LaunchKeywords
    ) -> tuple[Launch, dict[str, object]]:
        from synapse_plugins.pipelines.engine import OWN_OPTIONS, Launch

        own = {key: value for key, value in options.items() if key in OWN_OPTIONS}
        rest = {key: value for key, value in options.items() if key not in OWN_OPTIONS}
        return Launch(kernel, self, params, **own), rest  # type: ignore[arg-type] # by the TypedDict
