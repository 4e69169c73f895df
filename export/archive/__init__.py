"""``python -m export archive``: screen more pictures than one machine can, on Dask distributed, into Parquet."""
