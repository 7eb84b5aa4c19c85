"""``basin-gate doctor`` on the whole product as it is embedded: nothing to mend."""

import pytest
from whole_product import PATIENCE_S, Product

from gate.doctor.command import all_checks, status
from gate.doctor.examining import examined
from gate.domain.examination import Health
from gate.settings import Settings


def test_the_embedded_product_has_nothing_wrong_and_everything_could_be_checked(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in product.stack.environment.items():
        monkeypatch.setenv(name, value)
    product.until(product.client.list_webhooks, "the webhook to be made")
    findings = examined(tuple(all_checks(Settings())), limit_s=PATIENCE_S)
    ill = [finding for finding in findings if finding.health in (Health.PROBLEM, Health.UNCHECKED)]
    assert ill == []
    assert status(findings) == 0
    assert {"guard", "rights", "webhook's delivery", "device memory"} <= {finding.check for finding in findings}
