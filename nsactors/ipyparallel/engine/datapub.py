"""``publish_data`` under the name that older programs for ipyparallel import."""

from nsactors.ipyparallel.datapub import publish_data

__all__ = ["publish_data"]
