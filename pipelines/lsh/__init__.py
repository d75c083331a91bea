"""Locality-sensitive hashing: from signatures to verified clusters and survivors; what `pipelines.dedupe` runs."""
