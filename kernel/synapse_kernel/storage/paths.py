"""Keys as paths: the interface of `pathlib` over any storage, and the type of params that hold one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import fsspec  # type: ignore[import-untyped]
from upath import UPath
from upath.registry import register_implementation

from synapse_kernel.current import kernel_here
from synapse_kernel.errors import SynapseError
from synapse_kernel.storage.filesystem import PROTOCOL, StorageFileSystem

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema

    from synapse_kernel.storage.storage import Storage


class StoragePath(UPath):
    """
    A file or folder of a storage, with the interface of `pathlib.Path`; ``str()`` of it is its URL.

    As the type of a params field it takes a URL, ``storage://name/key`` or a local path, and arrives as a
    path of that storage: nothing is opened before it is used.
    """

    __slots__ = ()

    @property
    def storage(self) -> Storage:
        """The storage that it is in."""
        return cast("Storage", self.storage_options["storage"])

    @property
    def key(self) -> str:
        """Its key there."""
        return self.path

    def __str__(self) -> str:
        return self.storage.get_address(self.path)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> CoreSchema:
        from pydantic_core import core_schema

        del source, handler
        return core_schema.no_info_plain_validator_function(
            _parsed,
            serialization=core_schema.to_string_ser_schema(),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        del schema, handler
        return {"type": "string", "format": "storage-path"}


def _parsed(value: object) -> StoragePath:
    if isinstance(value, StoragePath):
        return value
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError("a storage path is a URL, storage://name/key or a local path, as text")  # noqa: TRY004 - pydantic takes this for a mistake of the input
    try:
        location = kernel_here().storages.location(str(value))
    except SynapseError as error:
        # pydantic tells of a ValueError with the field's name, in one line.
        raise ValueError("; ".join(map(str.strip, str(error).splitlines()))) from error
    return path_in(location.storage, location.key)


def path_in(storage: Storage, key: str) -> StoragePath:
    """Return a key of a storage as a path."""
    return cast("StoragePath", UPath(f"{PROTOCOL}://{key}", storage=storage))


fsspec.register_implementation(PROTOCOL, StorageFileSystem, clobber=True)
register_implementation(PROTOCOL, StoragePath, clobber=True)
