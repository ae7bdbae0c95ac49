from .checking import (
    check as check,
    check_method as check_method,
    check_metric as check_metric,
    check_provider as check_provider,
)
from .conformance import conformance as conformance
from .memorizing import Memorizing as Memorizing, memorizing_testbed as memorizing_testbed
from .models import (
    ARCHITECTURES as ARCHITECTURES,
    Architecture as Architecture,
    tiny_model as tiny_model,
    tiny_sequences as tiny_sequences,
    tiny_testbed as tiny_testbed,
)
from .report import Finding as Finding, Report as Report, Rule as Rule, Verdict as Verdict
from .rules.catalogue import RULES as RULES
