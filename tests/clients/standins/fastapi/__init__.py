"""Stands in for FastAPI in the documents' tests, which are about the wire: see testclient."""
