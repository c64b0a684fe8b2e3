"""Description of this machine for benchmark reports: that of `edgedistill measure`."""

from deploy.measure.machine import describe, host, summary

__all__ = ["describe", "host", "summary"]
