"""What happened, in order: the evidence that checker.py judges.

A history is a list of dicts, each with "t" (monotonic seconds) and "e", and the same as JSON Lines in the run's folder:
  submit    key, delivery, kind, expect (SHA-256 of the result's text, or null)     before the request is sent
  accepted  key, op                                                                 a 2xx was read
  refused   key, status                                                             a definite 4xx was read
            (neither: the outcome is not known, and the same key is submitted again)
  cancel    op                                                                      before the request is sent
  seen      op, state, attempt                                                      a later read
  fault     n, kind, target, detail                                                 when it begins
  exit      target, status                                                          a process ended that nobody had told to
  excused   target, status                                                          the same on a full disk, where it may
  healed    n, done                                                                 when it is over
  listed    op, key          at the end: an operation that the gateway's list has
  final     op, key, state, attempt, result_sha256, events                          at the end, for each accepted one
  stored    op, attempt, status          at the end, from the agents' logs: a result that was in a spool
  effect    key, n, attempts                                                        at the end: rows of the effects table
"""
import json
import threading
import time


class History:
    """Any thread may add."""

    def __init__(self, path):
        self.events = []
        self._file = open(path, "w", encoding="utf-8")
        self._lock = threading.Lock()

    def add(self, e, **fields):
        event = {"t": round(time.monotonic(), 4), "e": e, **fields}
        with self._lock:
            self.events.append(event)
            self._file.write(json.dumps(event) + "\n")

    def close(self):
        self._file.close()
