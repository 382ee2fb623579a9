"""The Google Healthcare API as far as it is used: paths, bearer tokens, STOW-RS, import and operations."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from pydicom import dcmread
from tests.stores.fakes.dicomweb import StrictDicomWeb
from tests.stores.fakes.gcs import StrictGcs
from tests.stores.fakes.http_server import Request, Response, as_json

__all__ = ["StrictHealthcare"]

STORE = "/v1/projects/p/locations/l/datasets/d/dicomStores/s"


@dataclass
class Operation:
    polls_left: int
    counter: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] | None = None


class StrictHealthcare(StrictDicomWeb):
    """The store ``healthcare://p/l/d/s``.

    Attributes
    ----------
    gcs : StrictGcs or None
        Where imports read.
    polls : int
        How often an operation is asked for before it is done.
    import_error : int
        Code of google.rpc.Code that imports end with; whether they have done their work by then says `imports`.
    imports : bool
        Whether imports store anything.
    """

    root = f"{STORE}/dicomWeb"
    takes_multipart = False

    def __init__(self, gcs: StrictGcs | None = None) -> None:
        super().__init__()
        self.gcs = gcs
        self.tokens = {"Bearer right"}
        self.polls = 2
        self.import_error = 0
        self.imports = True
        self.operations: dict[str, Operation] = {}

    def answer(self, request: Request) -> Response:
        if request.method == "POST" and request.path == f"{STORE}:import":
            return self._import(json.loads(request.read_all()))
        match = re.fullmatch(r"/v1/(projects/p/locations/l/datasets/d/operations/\d+)", request.path)
        if match and request.method == "GET":
            return self._operation(match[1])
        match = re.fullmatch(rf"{self.root}/studies/([0-9.]+)/series/([0-9.]+)", request.path)
        if match and request.method == "DELETE":
            found = [key for key in self.instances if key[:2] == (match[1], match[2])]
            for key in found:
                del self.instances[key]
            return self._start(Operation(self.polls)) if found else Response(404)
        return super().answer(request)

    def _start(self, operation: Operation) -> Response:
        with self.lock:
            name = f"projects/p/locations/l/datasets/d/operations/{len(self.operations) + 1}"
            self.operations[name] = operation
        return as_json(200, {"name": name})

    def _operation(self, name: str) -> Response:
        operation = self.operations.get(name)
        if operation is None:
            return Response(404)
        told: dict[str, Any] = {"name": name, "metadata": {"counter": {"pending": "1"}}}
        if operation.polls_left:
            operation.polls_left -= 1
            return as_json(200, told)
        told |= {"done": True, "metadata": {"counter": operation.counter}}
        told |= {"error": operation.error} if operation.error else {"response": {}}
        return as_json(200, told)

    def _import(self, body: dict[str, Any]) -> Response:
        match = re.fullmatch(r"gs://([^/]+)/([^*?]+)", body["gcsSource"]["uri"])
        assert match is not None
        assert self.gcs is not None
        if match[1] != self.gcs.bucket or match[2] not in self.gcs.objects:
            return as_json(400, {"error": {"code": 400, "message": "no such object"}})
        operation = Operation(self.polls, {"failure": "1"})
        if self.import_error:
            operation.error = {"code": self.import_error, "message": f"could not import Muster^Maß from {match[2]}"}
        path = self.gcs.objects[match[2]].path
        if self.imports:
            header = dcmread(path, stop_before_pixels=True)
            key = (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
            kept = f"{self._folder.name}/{secrets.token_hex(8)}"
            with open(kept, "wb") as file:
                file.write(path.read_bytes())
            # What is there already is passed over without a word.
            self.instances.setdefault(key, type(path)(kept))
            operation.counter = {"success": "1"}
        return self._start(operation)
