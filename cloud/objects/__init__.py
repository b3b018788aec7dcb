"""Artifact bytes: files below the service's root (S3 later).

What flows in: streams. What flows out: streams with ranges, digests.
"""
