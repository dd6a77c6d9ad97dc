from pydantic import BaseModel, Field

from synapse_kernel import action


class Params(BaseModel):
    name: str = Field("world", min_length=1, description="Whom to greet.")
    times: int = Field(1, ge=1, le=10)


@action
def greet(params: Params, ctx) -> str:
    """Greet someone."""
    for done in range(params.times):
        ctx.set_progress(done + 1, params.times)
    return " ".join([f"Hello, {params.name}!"] * params.times)
