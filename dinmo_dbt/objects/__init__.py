"""An object store: Amazon S3 and what speaks as it does, Google Cloud Storage, Azure. The only importer of fsspec."""

from dinmo_dbt.objects.bucket import Bucket, open_bucket
from dinmo_dbt.objects.tables import BucketTables

__all__ = ["Bucket", "BucketTables", "open_bucket"]
