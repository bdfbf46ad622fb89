"""An object store: Amazon S3 and what speaks as it does, Google Cloud Storage, Azure. The only importer of fsspec."""

from dinmo_dbt.objects.bucket import SCHEMES, Bucket, open_bucket
from dinmo_dbt.objects.tables import BucketTables

__all__ = ["SCHEMES", "Bucket", "BucketTables", "open_bucket"]
