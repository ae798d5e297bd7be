"""AWS's own library understands how the simulated AWS refuses."""

from __future__ import annotations

from contextlib import closing

import pytest
from botocore.exceptions import ClientError

from tests.peers.aws import ALIAS, RunningAws
from tests.sim.aws import REFUSALS, refusing_aws


@pytest.mark.parametrize("name", REFUSALS)
def test_simulated_aws_refuses_with_name_and_text_of_error(name: str) -> None:
    with refusing_aws() as aws, closing(RunningAws(aws.endpoint).kms()) as client:
        aws.refusals["DescribeKey"] = name
        with pytest.raises(ClientError) as error:
            client.describe_key(KeyId=ALIAS)
    assert error.value.response["Error"] == {"Code": name, "Message": REFUSALS[name]}
    assert set(aws.operations) == {"DescribeKey"}


def test_client_tries_again_when_throttled_and_not_when_denied() -> None:
    """The library's own default; a deadline has to bound it."""
    asked = []
    for name in ("ThrottlingException", "AccessDeniedException"):
        with refusing_aws() as aws, closing(RunningAws(aws.endpoint).kms()) as client:
            aws.refusals["DescribeKey"] = name
            with pytest.raises(ClientError):
                client.describe_key(KeyId=ALIAS)
        asked.append(len(aws.operations))
    assert asked[0] > 1
    assert asked[1] == 1
