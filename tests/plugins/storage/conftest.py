"""Real servers for the tests of storage providers."""

from __future__ import annotations

from tests.storage_servers.fixtures import gcs, http, moto, rclone, s3, sftp, sftp_read_only

__all__ = ["gcs", "http", "moto", "rclone", "s3", "sftp", "sftp_read_only"]
