"""A page and a service for a loaded model (`omgsr serve`, extra [serve]).

Begin with app.py, which puts the parts together, and service.py, the way of an upload.

server.py               the process: listening, preparing the model, ending in order
app.py, rest.py         the application and its routes; openapi.py describes them
page.py, static/        the page, which uses these routes
access.py               the token, and pages of other sites
requests.py, asked.py   what a request holds, and what it asks for
uploads.py              bytes to pictures
service.py              an upload's way to its result
batcher.py              the thread that owns the model, and batches
jobs.py                 results that are fetched later
limits.py, refusals.py  what is accepted, and what others are told
log.py, metrics.py      a line for each request, figures for Prometheus
"""
