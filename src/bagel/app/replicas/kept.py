"""Which replica a request goes to: one of a session to the session's own, any other to where the queue is shorter."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class KeptRouter(RequestRouter):
    """Rendezvous hashing of the session's id: while a session's replica lives it has all of its requests, and when
    it dies its sessions alone move. Without a session: the shorter queue of two replicas picked at random."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        session = pending_request.metadata.session_id if pending_request is not None else ""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        if not session or not candidate_replicas:
            return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
        return [[max(candidate_replicas, key=lambda replica: rank(session, replica.replica_id.unique_id))]]

    def initialize_state(self, **kwargs: Any) -> None:
        """There is nothing to set."""


def rank(session: str, replica: str) -> bytes:
    """The replica of the highest rank is the session's."""
    return hashlib.sha256(f"{session}\n{replica}".encode()).digest()
