"""The page on which one user paints: requests in, pictures and JSON out, over a session.

It is for the user of this machine alone: bound to 127.0.0.1, and silent where it is asked under another name.
"""

import io as streams
import json
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jax.numpy as jnp
import numpy as np

from rwalk import drawing, io, online, paint
from rwalk.checks import InputError
from rwalk.session import Session

HOST = "127.0.0.1"
LARGEST = 2**20  # bytes of a request
PAGES = {
    "/": ("serve.html", "text/html"),
    "/serve.css": ("serve.css", "text/css"),
    "/serve.js": ("serve.js", "text/javascript"),
}
OPACITY = 0.45


def listen(session: Session, port: int, folder: Path) -> ThreadingHTTPServer:
    """A server of a session on this machine's own address; it answers once `serve_forever` runs.

    Args:
        session: what is served.
        port: 0 picks a free one.
        folder: where results are saved.

    Returns:
        The server.

    Raises:
        InputError: the port is taken.
    """
    handler = type("Handler", (Handler,), {"session": session, "folder": folder})
    try:
        return Listener((HOST, port), handler)
    except OSError as fault:
        raise InputError(f"serve.port={port}: {fault.strerror}; give another one, 0 picks one that is free") from fault


class Listener(ThreadingHTTPServer):
    """A thread a request, none of which keeps the process; a page that goes away is no fault."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of a fault on the terminal, unless the other end hung up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Pages, pictures and interactions; every fault of a request is one line of JSON."""

    session: Session
    folder: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the library's
        """Nothing: the terminal is for faults."""

    def do_GET(self) -> None:
        """Pages and pictures."""
        path, _, text = self.path.partition("?")
        query = {key: values[-1] for key, values in parse_qs(text).items()}
        if path in PAGES:
            name, kind = PAGES[path]
            page = (Path(__file__).parent / "templates" / name).read_bytes()
            self._send(200, page, f"{kind}; charset=utf-8")
        else:
            self._answer(
                {"/about": about, "/state": lambda s, _: s.state(), "/slice": picture, "/overlay": overlay}, query
            )

    def do_POST(self) -> None:
        """Interactions, as JSON."""
        try:
            size = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            size = 0
        if self.headers.get_content_type() != "application/json" or not 0 < size <= LARGEST:
            self.close_connection = True
            self._refuse(
                400, f"a request is JSON of 1 to {LARGEST} bytes, with the header Content-Type: application/json"
            )
            return
        text = self.rfile.read(size)
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            self._refuse(400, "the request is no JSON object")
            return
        verbs: dict[str, Callable[[Session, dict], Any]] = {
            "/paint": _paint, "/undo": lambda s, _: s.undo(), "/clear": lambda s, _: s.clear(), "/graph": _graph,
            "/save": lambda s, _: {"files": save(s, self.folder)},
        }  # fmt: skip
        self._answer(verbs, given)

    def _answer(self, verbs: dict[str, Callable[[Session, dict], Any]], given: dict[str, Any]) -> None:
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in (HOST, "localhost"):
            self._refuse(403, f"this page answers to {HOST} alone")
            return
        path = self.path.partition("?")[0]
        verb = verbs.get(path)
        if verb is None:
            self._refuse(404, f"{path}: not known; known are {', '.join(verbs)}")
            return
        try:
            found = verb(self.session, given)
        except (InputError, KeyError, OverflowError, TypeError, ValueError) as fault:
            line = f"{fault.args[0]}: missing" if isinstance(fault, KeyError) else str(fault)
            self._refuse(400, " ".join(line.split()))
            return
        if isinstance(found, bytes):
            self._send(200, found, "image/png")
        else:
            self._send(200, json.dumps(found).encode(), "application/json")

    def _refuse(self, code: int, line: str) -> None:
        self._send(code, json.dumps({"error": line}).encode(), "application/json")

    def _send(self, code: int, content: bytes, kind: str) -> None:
        self.send_response(code)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def about(session: Session, _: dict) -> dict[str, Any]:
    """What does not change: shape, spacing, labels and their colours."""
    told = session.told
    case, count = told.case, told.serving.labels
    named = [case.names[i] if i < len(case.names) else f"label {i + 1}" for i in range(count)]
    focus = [int(part) for part in np.quantile(np.argwhere(case.mask), 0.45, axis=0)]
    return {
        "name": case.name,
        "shape": list(session.shape),
        "spacing": [float(edge) for edge in case.spacing],
        "labels": [{"name": name, "colour": drawing.COLOURS[i].astype(int).tolist()} for i, name in enumerate(named)],
        "focus": focus,
        "pairs": int(told.basis.values.size),
        "kind": told.problem.kind,
        "beta": told.weights.beta,
        "residual": told.serving.residual,
    }


def _cut(session: Session, given: dict[str, Any]) -> tuple[Any, ...]:
    """Index of the slice that is asked for."""
    d = len(session.shape)
    if d == 2:
        return (slice(None), slice(None))
    axis, index = int(given["axis"]), int(given["index"])
    if not 0 <= axis < d or not 0 <= index < session.shape[axis]:
        raise InputError(f"axis={axis}, index={index}: no such slice; the image has the shape {session.shape}")
    return tuple(index if a == axis else slice(None) for a in range(d))


def picture(session: Session, given: dict[str, Any]) -> bytes:
    """One slice in grey, as PNG; a pixel a voxel."""
    case, cut = session.told.case, _cut(session, given)
    low, high = session.window
    grey = np.clip((case.image[0][cut] - low) / max(high - low, 1e-12), 0, 1) * 255
    return _png(np.repeat(grey[..., None], 3, -1))


def overlay(session: Session, given: dict[str, Any]) -> bytes:
    """What lies over a slice, as PNG with opacity: labels, the probability of one or the entropy; and the seeds."""
    cut, kind = _cut(session, given), given.get("kind", "labels")
    with session.lock:
        shown, seeds, region = (
            session.shown,
            session.seeds[: session.n].reshape(session.shape)[cut].copy(),
            session.region,
        )
    colours = np.zeros((*seeds.shape, 4))
    if shown is not None:
        labels = shown.labels[cut]
        strength = np.where(labels >= 0, OPACITY * 255, 0)
        if kind == "labels":
            colours = np.concatenate([drawing.colour(labels), strength[..., None]], -1)
        elif kind in ("probability", "entropy"):
            parts = shown.x[(slice(None), *cut)]
            x = _entropy(parts) if kind == "entropy" else parts[_label(session, given)]
            colours = np.concatenate([drawing.heat(x), np.where(labels >= 0, 190, 0)[..., None]], -1)
        elif kind != "none":
            raise InputError(f"kind={kind}: allowed are labels, probability, entropy and none")
    painted = seeds >= 0
    colours[painted] = np.concatenate([drawing.colour(seeds[painted]), np.full((painted.sum(), 1), 255.0)], -1)
    if region is not None:
        inside = paint.box(session.shape, region)[cut]
        colours[~inside & ~painted] = (0, 0, 0, 130)
    return _png(colours)


def _entropy(x: np.ndarray) -> np.ndarray:
    return np.asarray(online.entropy(jnp.asarray(x)), np.float32)


def _label(session: Session, given: dict[str, Any]) -> int:
    label = int(given.get("label", 1))
    if not 1 <= label <= session.told.serving.labels:
        raise InputError(f"label={label}: allowed are 1 to {session.told.serving.labels}")
    return label - 1


def _png(colours: np.ndarray) -> bytes:
    """First axis to the right, second upwards."""
    from PIL import Image

    stream = streams.BytesIO()
    Image.fromarray(colours.swapaxes(0, 1)[::-1].astype(np.uint8)).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def _paint(session: Session, given: dict[str, Any]) -> dict[str, Any]:
    points = np.asarray(given["points"], np.int64)
    return session.stroke(points, int(given["axis"]), float(given["radius"]), int(given["label"]))


def _graph(session: Session, given: dict[str, Any]) -> dict[str, Any]:
    region = given.get("region")
    box = None if region is None else paint.Region(tuple(int(c) for c in region["centre"]), int(region["half"]))
    return session.change(float(given["factor"]), box)


def save(session: Session, folder: Path) -> list[str]:
    """Write labels, probabilities, entropy, margin and the seeds on the grid of the image; the files' paths.

    Raises:
        InputError: there is no answer yet.
    """
    with session.lock:
        shown, seeds = session.shown, session.seeds[: session.n].reshape(session.shape).copy()
    if shown is None:
        raise InputError("nothing to save: paint seeds of two labels first")
    active = shown.labels >= 0
    margin = np.where(active, np.asarray(online.margin(jnp.asarray(shown.x))), 0).astype(np.float32)
    found: dict[str, np.ndarray] = {
        "labels": (shown.labels + 1).astype(np.uint8),
        "probabilities": shown.x.astype(np.float32),
        "entropy": _entropy(shown.x),
        "margin": margin,
        "seeds": (seeds + 1).astype(np.uint8),
    }
    case = session.told.case
    return [
        str(io.save(folder / name, case.uncut(array), case.affine, channels=name == "probabilities"))
        for name, array in found.items()
    ]
