"""Results that are kept: signed, compressed, spread in time, and computed once however many ask.

`envelope` and `lifetimes` are pure. `store` keeps envelopes in Redis, large ones in files (`spill_files`);
`runtime.superset.caches` is what flask-caching and Superset's RESULTS_BACKEND load. `single_flight` lets identical requests wait
for one, whose death `process_liveness` sees; `followers` does the same for asynchronous charts, whose followers hold no worker.
"""
