from __future__ import annotations

import pytest

from meshgw.admin.errors import CannotDelegate, NoAnswer, NotResolved, Relayed, ReloadUnderWay, relayed
from meshgw.errors import MeshError, NamerError


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (CannotDelegate(namespace="one"), 501, "Name Interpreter for one cannot show delegations"),
        (NoAnswer(who="worker 2", seconds=5.0), 504, "worker 2 did not answer within 5 s"),
        (ReloadUnderWay(), 409, "a reload is under way"),
        (TimeoutError("whatever"), 503, "Request timed out."),
        (NotResolved(waiting_for=""), 503, "Request timed out."),
        (NotResolved(waiting_for="dc1/web"), 503, "Request timed out. Still waiting for dc1/web."),
        (NamerError(detail="no such namer"), 500, "no such namer"),
        (Relayed(code=418, text="tea"), 418, "tea"),
    ],
)
def test_every_error_has_a_status_and_a_sentence(error: MeshError | TimeoutError, code: int, text: str) -> None:
    told = relayed(error)
    assert (told.code, told.text) == (told.status, str(told)) == (code, text)
