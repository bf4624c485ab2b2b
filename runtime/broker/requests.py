"""What a worker's parent process is told when a child is gone.

Celery asks a task for its class of requests (`Task.Request`), and calls it in the parent. As shipped the hard limit sends no
signal, and a message that is given back is the last of its queue. The one place that replaces `celery.worker.request.Request`
and a message's `reject` (read and tested with Celery 5.6 and kombu 5.6).

(No upstream issue known.)
"""

from __future__ import annotations

from typing import Any, cast

from celery.worker.request import Request
from kombu.transport.virtual import base

from runtime.environment import versions

versions.require(__name__, "celery", "kombu")


class WatchedRequest(Request):
    """A request that tells its subclass of a hard limit and of a lost child."""

    def at_hard_limit(self, seconds: float) -> None:
        """The child has reached the hard limit: it is about to be killed, and its message is done with."""
        raise NotImplementedError

    def child_lost(self, *, comes_again: bool) -> None:
        """The child is gone; `comes_again` where its message is given back."""
        raise NotImplementedError

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """The child has reached a limit."""
        Request.on_timeout(self, soft, timeout)
        if not soft:
            self.at_hard_limit(timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """The task has failed, or its child is gone."""
        # Celery hands it over in a wrapper that keeps the traceback.
        if type(getattr(exc_info.exception, "exc", exc_info.exception)).__name__ == "WorkerLostError":
            again = bool(self.task.acks_late and self.task.reject_on_worker_lost)
            self.child_lost(comes_again=again)
            if again:
                _comes_next(self.message)
        return Request.on_failure(self, exc_info, send_failed_event=send_failed_event, return_ok=return_ok)


def _comes_next(message: Any) -> None:
    """Have the message, when it is given back, be the next one, and not behind all that waits.

    As shipped (kombu 5.6) Redis's transport puts it last. Celery gives it back a turn of its loop later.
    """

    def reject(requeue: bool = False) -> None:
        if not requeue:
            cast(Any, type(message)).reject(message)
            return
        message.channel.qos.restore_by_tag(message.delivery_tag)
        # Only what this process remembers: in the broker the message may be another worker's by now.
        base.QoS.ack(message.channel.qos, message.delivery_tag)
        message._state = "REQUEUED"
        if wake := getattr(message.channel, "wake", None):
            wake()

    message.reject = reject
