"""The front door: HTTP in, the ledger's functions and rows out. Knows requests and users; no SQL text, no step code."""

from api.app import create_app

__all__ = ["create_app"]
