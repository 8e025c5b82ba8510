"""Runs of notebooks: their parameters, claims and records, what code made a record, and the tables over records."""

from helpers.provenance import repo_root
from helpers.runs.record import ClaimError, read_record, records, replay
from helpers.runs.run import PROFILES, Run, start_run

__all__ = ["PROFILES", "ClaimError", "Run", "read_record", "records", "replay", "repo_root", "start_run"]
