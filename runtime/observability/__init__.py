"""What is measured: metrics of queues and tasks, a worker's sign of life, usage and cost."""
