"""The benchmark of asynchronous queries: two configurations measured in turns, by the same load, on services of their own."""
