"""Redis as Celery's and kombu's broker: the only place that knows their keys, messages and internals."""
