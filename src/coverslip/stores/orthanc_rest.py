"""What Orthanc tells and does beside DICOMweb: md5 and size of its files, and removal.

Its DICOMweb plugin answers 405 to DELETE. Its own REST API lies one level above the service, if nothing stands between.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass

from coverslip.errors import StoreError
from coverslip.stores.http_client import Body, HttpClient

__all__ = ["OrthancFile", "OrthancRest"]


@dataclass(frozen=True, slots=True)
class OrthancFile:
    """The file of an instance, as it was sent.

    Parameters
    ----------
    place : str
        Of the instance in the REST API.
    size_bytes : int
    md5 : str
        In hexadecimal.
    """

    place: str
    size_bytes: int
    md5: str


class OrthancRest:
    """The REST API above a DICOMweb service, if it is Orthanc's.

    Parameters
    ----------
    http : HttpClient
    dicomweb_url : str
    """

    def __init__(self, http: HttpClient, dicomweb_url: str) -> None:
        self._http = http
        self._root = dicomweb_url.rpartition("/")[0]
        self._is_there: bool | None = None
        self._lock = threading.Lock()

    def is_there(self) -> bool:
        """Whether this is Orthanc; asked until there is an answer."""
        with self._lock:
            if self._is_there is None:
                self._is_there = self._recognise()
            return bool(self._is_there)

    def _recognise(self) -> bool | None:
        if self._root.endswith("/"):
            return False  # the service is at the root of its host
        try:
            answer = self._http.ask_once(
                "GET", f"{self._root}/system", "Orthanc", headers={"Accept": "application/json"}
            )
            system = json.loads(answer.content)
        except StoreError as error:
            return None if error.retryable else False
        except ValueError:
            return False
        return isinstance(system, dict) and {"ApiVersion", "DicomAet", "DatabaseVersion"} <= system.keys()

    def find_file(self, sop_instance_uid: str) -> OrthancFile | None:
        """Return what Orthanc says of the file of an instance; None if it has none."""
        if not self.is_there():
            return None
        body: Body = (len(sop_instance_uid), lambda: iter([sop_instance_uid.encode()]))
        what = f"instance {sop_instance_uid}"
        answer = self._http.ask("POST", f"{self._root}/tools/lookup", what, body=body)
        try:
            places = [str(each["Path"]) for each in json.loads(answer.content) if each["Type"] == "Instance"]
        except (ValueError, KeyError, TypeError):
            return None
        if len(places) != 1 or not re.fullmatch(r"/instances/[0-9a-f-]+", places[0]):
            return None
        place = f"{self._root}{places[0]}"
        size = self._http.ask("GET", f"{place}/attachments/dicom/size", what, expected=(200, 404))
        md5 = self._http.ask("GET", f"{place}/attachments/dicom/md5", what, expected=(200, 404))
        if not re.fullmatch(rb"[0-9a-f]{32}", md5.content) or not size.content.isdigit():
            return None
        return OrthancFile(place, int(size.content), md5.content.decode())

    def remove(self, sop_instance_uid: str) -> bool:
        """Remove an instance; False if Orthanc has none."""
        file = self.find_file(sop_instance_uid)
        if file is None:
            return False
        answer = self._http.ask("DELETE", file.place, f"instance {sop_instance_uid}", expected=(200, 404))
        return answer.status == 200
