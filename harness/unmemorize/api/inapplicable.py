"""Why a method cannot act on a model of one's own, and what can be given or chosen instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from unmemorize.errors import ConfigError

if TYPE_CHECKING:
    from unmemorize.contracts.method import Method
    from unmemorize.contracts.testbed import Testbed
    from unmemorize.registry.manager import Registry


class _Given(NamedTuple):
    """How a set that a method needs is given to `mitigate`."""

    expected: str
    fix: str


_RETAIN = "pass retain=... to mitigate(...), or --retain FILE to `unmemorize mitigate`"
_GIVEN = {
    "clean": _Given(
        "a clean counterpart of each row of forget",
        "give each row of forget a `clean_text` or `clean_tokens`, as fields of dicts or of JSON lines",
    ),
    "extra": _Given("a retain set, which is also its `extra` training data", _RETAIN),
    "retain": _Given("a retain set", _RETAIN),
}


def cannot_act(method: Method, reason: str, testbed: Testbed, registry: Registry) -> ConfigError:
    """Return the error for a method that does not apply to a model and its sets.

    Args:
        method: the method with its settings.
        reason: why it does not apply.
        testbed: the model and the sets that were given.
        registry: where other methods are.
    """
    what = f"method {method.name!r} cannot act here: {reason}"
    if method.stage == "train":
        return ConfigError(
            what,
            expected="a method that acts on a trained model: this one acts while a model is trained from scratch",
            fix=f"name it in a suite whose testbeds are trained: unmemorize run quick --methods {method.name}",
        )
    absent = [given for need, given in _GIVEN.items() if need in method.needs and not (getattr(testbed, need) or ())]
    if absent:
        return ConfigError(
            what,
            expected=" and ".join(given.expected for given in absent),
            fix="; and ".join(dict.fromkeys(given.fix for given in absent)),
        )
    return ConfigError(what, **_others(method, testbed, registry))


def _others(method: Method, testbed: Testbed, registry: Registry) -> dict[str, str]:
    """Say in `expected` and `fix` which methods act on the model."""
    from unmemorize.execution.architecture import acting

    names = {name: needs for name, needs in acting(testbed, registry).items() if name != method.name}
    listed = ", ".join(f"{name} ({needs})" for name, needs in names.items())
    fixes = [f"method={name!r} in mitigate(...), --method {name} on its command line" for name in list(names)[:1]]
    if testbed.mlps:  # without them, no setting helps
        fixes.append(
            "change what the reason names, NAME=VALUE in mitigate(...), --set NAME=VALUE on its command line "
            f"(`unmemorize show {method.name}` lists the settings)"
        )
    return {
        "expected": f"a method that acts on this model, with its data: {listed or 'none does'}",
        "fix": "; or ".join(fixes) or "`unmemorize list methods` shows all",
    }
