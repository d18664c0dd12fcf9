"""The page that says what can be asked of the server."""

from __future__ import annotations

import html
from typing import Any


def page(openapi: dict[str, Any]) -> str:
    """A page that says what every route takes and answers; it loads nothing."""
    parts = []
    for path, methods in openapi["paths"].items():
        for method, about in methods.items():
            told = html.escape(about.get("description", ""))
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(about.get('summary', ''))}. {told}</p>")
            for kind, body in about.get("requestBody", {}).get("content", {}).items():
                rows = "".join(
                    f"<tr><td><code>{html.escape(name)}</code></td>"
                    f"<td>{html.escape(str(field.get('description', field.get('type', ''))))}</td>"
                    f"</tr>"
                    for name, field in body["schema"]["properties"].items()
                )
                parts.append(f"<h3>{kind}</h3><table>{rows}</table>")
            answers = "; ".join(
                f"{code}: {html.escape(str(answer.get('description', '')))}"
                for code, answer in about["responses"].items()
            )
            parts.append(f"<p><b>Answers</b> {answers}</p>")
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0;vertical-align:top}"
        "pre,code{font-family:ui-monospace,monospace}pre{overflow:auto;background:#f4f4f4;"
        "padding:1rem}"
    )
    example = (
        "curl -F photo=@photo.jpg -F style=great_wave http://127.0.0.1:8000/v1/apply -o out.png\n"
        "curl -F command=stylize -F photo=@photo.jpg -F painting=@painting.jpg \\\n"
        "     -F 'settings={&quot;size&quot;: 800}' http://127.0.0.1:8000/v1/jobs"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>impasto: the server</title>'
        f"<style>{style}</style><h1>impasto: the server</h1><pre>{example}</pre>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>' + "".join(parts)
    )
