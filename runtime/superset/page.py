"""What Superset's pages lack to show what the server says: a script in the head of each page.

- The page of a dashboard reads the errors of a refused chart from the answer itself, and not from its body, so that a full queue
  is "Data error" without a word. The script hands them over.
- SQL Lab shows each error of a query once as the query's own and once as its extra's. The script hides the second one.
- SQL Lab's grid numbers rows by an expression that it compiles at run time, which the content security policy refuses, rightly.
  The script has this one expression as a function.
- A chart's data that arrived through the queue are read as the browser reads JSON, which rounds integers beyond 2^53; those that
  are answered at once are read exactly. The script has both read alike.
- The button that stops a chart gives up a request that the server has answered long ago; the chart runs on, and is shown after
  all. The script tells the server which job was given up.
- A guest of a dashboard in another site has no cookie that tells his page from another's. The script makes up a name of the page,
  and sends it with each of its requests (`runtime.superset.embedding`).

Replaces the template head_custom_extra.html, which Superset includes in each page for that (read and tested with the pages of
Superset 6.1.0, in a real browser; no upstream issue known).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.environment import versions
from runtime.superset.embedding import PAGE_HEADER

if TYPE_CHECKING:
    from flask import Flask

TEMPLATE = "head_custom_extra.html"
SCRIPT = """
(() => {
  const native = window.fetch.bind(window);
  // A guest's page: the token that comes with its requests is soon another one.
  const page = /\\/embedded\\/[^/]+\\/?$/.test(location.pathname) && crypto.getRandomValues(new Uint32Array(4)).join("-");
  let sent;
  const fetched = (asked, how) => {
    const url = new URL(asked.url ?? asked, location);
    if (!page || url.origin !== location.origin || !url.pathname.includes("/api/")) return native(asked, how);
    sent = new Headers(how?.headers ?? asked.headers);
    sent.set("%(page)s", page);
    return native(asked, {...how, headers: sent});
  };
  window.fetch = async (...asked) => {
    const answer = await fetched(...asked);
    if (answer.status === 202 && /\\/api\\/v1\\/chart\\/data/.test(answer.url)) stoppable(answer.clone(), asked[1]?.signal);
    if (answer.status >= 400 && /\\/api\\/v1\\/chart\\/(data|[0-9]+\\/data)|\\/explore_json/.test(answer.url)) {
      try {
        const said = await answer.clone().json();
        answer.errors = said.errors;
        if (!said.errors && typeof said.message === "string") answer.message = said.message;
      } catch { /* No JSON: the page says what it can. */ }
    }
    if (answer.ok && /\\/(api\\/v1\\/chart\\/data|superset\\/explore_json\\/data)\\/./.test(answer.url)) {
      answer.json = async () => {
        const text = await answer.text();
        return /\\d{16}/.test(text) ? JSON.parse(text, whole) : JSON.parse(text);
      };
    }
    return answer;
  };
  // The page gives up its request when a chart is stopped, or asked for anew: the server has answered that long ago.
  const stoppable = async (answer, signal) => {
    const job = (await answer.json()).job_id ?? "";
    const stop = () =>
      fetched(new URL("../superset_async/charts/" + encodeURIComponent(job), answer.url), {method: "DELETE", headers: sent});
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, {once: true});
  };
  // `source` is the number as it stands there, in browsers that tell it; without it the number is rounded as before.
  const whole = (key, value, {source} = {}) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\\d+$/.test(source) ? BigInt(source) : value;

  const compiled = window.Function;
  const known = {"return node.rowIndex+1;": (...given) => given[5].rowIndex + 1};
  const places = "x, ctx, oldValue, newValue, value, node";
  const make = (target, given, how) => {
    const body = String(given.at(-1));
    return given.length > 1 && String(given[0]).startsWith(places) && known[body] ? known[body] : how();
  };
  window.Function = new Proxy(compiled, {
    apply: (target, self, given) => make(target, given, () => Reflect.apply(target, self, given)),
    construct: (target, given) => make(target, given, () => Reflect.construct(target, given)),
  });

  const once = () => {
    for (const alert of document.querySelectorAll("[role=alert]")) {
      const place = alert.parentElement?.children.length === 1 ? alert.parentElement : alert;
      const before = place.previousElementSibling;
      const repeated = before !== null && before.textContent !== "" && before.textContent === place.textContent;
      if (place.hidden !== repeated && (repeated || place.dataset.repeated)) {
        place.hidden = repeated;
        place.style.display = repeated ? "none" : "";
        place.dataset.repeated = repeated ? "1" : "";
      }
    }
  };
  new MutationObserver(once).observe(document, {childList: true, subtree: true, characterData: true});
})();
""".replace("%(page)s", PAGE_HEADER)


def install(app: Flask) -> None:
    """Have the pages of this web process carry the script; UntestedVersionError for a Superset of another version."""
    from jinja2 import ChoiceLoader, DictLoader

    versions.require(__name__)
    nonce = '{% import "superset/macros.html" as macros with context %}<script nonce="{{ macros.get_nonce() }}">'
    shipped = app.jinja_env.loader
    ours = DictLoader({TEMPLATE: f"{nonce}{{% raw %}}{SCRIPT}{{% endraw %}}</script>"})
    app.jinja_env.loader = ChoiceLoader([ours, *([shipped] if shipped else [])])
