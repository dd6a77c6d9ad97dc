"""
The run store's contract: names that are no text.

A part of a file name that is no text is a lone surrogate to Python, and no database takes one.
"""

# ruff: noqa: D102, SIM300 - a test is a sentence by its name, and expects before it looks

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from synapse_kernel.stores import Environment, RunStore
from synapse_kernel.testing.run_store_parts import StoreFixtures, end, log, record

if TYPE_CHECKING:
    from synapse_kernel.owners import Owner


class TextContract(StoreFixtures):
    """Keeping what can be shown of a name."""

    def test_a_record_may_hold_names_that_are_no_text(self, store: RunStore, me: Owner) -> None:
        odd = "caf\udce9 \0 ünï"
        store.start(record("top"), me)
        store.start(
            record(
                "r1",
                parent="top",
                action=odd,
                target=odd,
                executor=odd,
                params={odd: [odd, {"deep": (odd, 1.5, None)}]},
                masked=[odd],
                env_names=[odd],
                node=odd,
                tags=[odd],
                job_id=odd,
                cwd=odd,
                work_dir=odd,
                commit=odd,
                definition={odd: [odd]},
            ),
            me,
        )
        store.finish(end("r1"))

        run = store.get("r1")
        assert run is not None
        for text in (run.action, run.target, run.executor, run.cwd, run.work_dir, run.node, *run.tags):
            assert text is not None
            assert text.startswith("caf")
            assert text.endswith("ünï")
        assert [1.5, None] == run.params[next(iter(run.params))][1]["deep"][1:]  # type: ignore[index]
        assert [run.node] == [child.node for child in store.children("top")]
        assert run.definition is not None

    def test_an_id_may_be_no_text(self, store: RunStore, me: Owner) -> None:
        odd = "r\udce9"
        store.start(record(odd), me)
        store.append(odd, [log("r", 1)])
        store.start(record("child", parent=odd, root=odd), me)
        store.finish(end("child"))
        store.put("cache", {"k": b"v"}, run_id=odd)
        store.finish(msgspec.structs.replace(end("r"), run_id=odd))

        run = store.get(odd)
        assert run is not None
        assert (1, 1, 1) == (len(store.events(odd)), len(store.children(odd)), len(store.matching(odd)))
        assert 2 == store.delete([odd])

    def test_a_scope_and_a_key_may_be_no_text(self, store: RunStore) -> None:
        store.put("s\udce9", {"k\udce9": b"v"})

        assert b"v" == store.value("s\udce9", "k\udce9")
        assert [b"v"] == [value for _, value in store.entries("s\udce9", "k\udce9")]

        store.remove("s\udce9", ["k\udce9"])
        assert [] == store.entries("s\udce9")

    def test_an_environment_may_hold_names_that_are_no_text(self, store: RunStore) -> None:
        store.put_environment(
            Environment(id="e\udce9", python="3.11.7", platform="x\udce9", packages={"\udce9": "1"})
        )

        found = store.environment("e\udce9")
        assert found is not None
        assert (True, "3.11.7", 1) == (store.has_environment("e\udce9"), found.python, len(found.packages))
