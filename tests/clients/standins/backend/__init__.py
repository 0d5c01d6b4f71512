"""Stands in for the documents' own server."""
