"""Results that are kept: signed, compressed, spread in time, and computed once however many ask.

`envelope` and `lifetimes` are pure. `store` keeps envelopes in Redis and `files`; `backend` is what flask-caching and
Superset's RESULTS_BACKEND load. `flights` lets identical requests wait for one, whose death `processes` sees; `charts` says
where in Superset a chart is computed; `followers` does the same for asynchronous charts, whose followers hold no worker.
"""
